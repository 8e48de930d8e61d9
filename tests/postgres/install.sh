#!/bin/sh
# Debian's PostgreSQL, for a machine on which no wheel with the binaries is installed. Needs root.
set -eu
export DEBIAN_FRONTEND=noninteractive
# Without this the package makes and starts a cluster of its own.
mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.d/no-main.conf
apt-get update -qq
apt-get install -y -qq --no-install-recommends postgresql
