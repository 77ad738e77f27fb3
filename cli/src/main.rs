//! Gangline.
fn main() {}
