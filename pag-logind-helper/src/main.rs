//! pag-logind-helper
fn main() {}
