"""Makes what an issuer and a host exchange: keys, sealed seeds, proofs."""
