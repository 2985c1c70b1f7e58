//! `megaphone-load users` against a server that does wrong on purpose and says what it did
//! (`megaphone-load stand-in`): the tool must have seen exactly that.

mod faults;
mod fleet;
mod logins;
mod report;
mod support;
mod time;
