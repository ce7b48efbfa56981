//! Where configuration comes from: one delta ADS stream to the control plane.
pub mod kind;
pub mod state;
