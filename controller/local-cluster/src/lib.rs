//! Gangline.
pub mod kubelet;
