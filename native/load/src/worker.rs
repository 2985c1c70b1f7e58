//! One worker process: up to some 19,000 users in one thread, with one epoll set.

/// Does what the fleet says on standard input, until that ends. The error is for a person.
pub fn run() -> Result<(), String> {
    todo!()
}
