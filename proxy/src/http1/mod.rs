//! HTTP/1.1 and 1.0 as a state machine: bytes in, heads and body frames out. No IO, no clock.
