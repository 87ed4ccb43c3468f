//! pagctl
fn main() {}
