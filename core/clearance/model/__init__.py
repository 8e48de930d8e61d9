"""The vocabulary: plain frozen values, no behaviour that touches the outside."""
