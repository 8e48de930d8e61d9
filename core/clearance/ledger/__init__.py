"""Pure arithmetic of accounts: hold, settle, refund, charge, fund, renew."""
