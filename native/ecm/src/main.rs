//! The megaphone edge connection manager.
fn main() {}
