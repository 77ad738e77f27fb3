//! Gangline.
