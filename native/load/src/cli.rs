//! The command line.

use clap::{Parser, Subcommand};

use crate::{bulk, http, link, stand_in, users};

/// Real XMPP users by the thousand, against any XMPP server.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Log XMPP users in, hold them, have them chatter
    Users(Box<users::Args>),
    /// Send HTTP requests over kept-alive connections
    Http(http::Args),
    /// Move bytes as fast as they go
    Bulk(bulk::Args),
    /// Open virtual connections on a megaphone listener's links, as an edge would
    Link(link::Args),
    /// Be a small server, to see what generator and kernel cost, or to lose messages on purpose
    StandIn(stand_in::Args),
    /// Hold some of the users (started by `users`)
    #[command(hide = true)]
    Worker,
}
