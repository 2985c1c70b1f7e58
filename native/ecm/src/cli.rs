//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Parser};

/// What `--help` ends with: the parts of docs/ecm.md that one needs at a prompt.
const AFTER_HELP: &str = "\
A configuration that is enough to begin with:

    name = \"edge-1\"

    [backend]
    address = \"127.0.0.1:6280\"       # or \"unix:/run/ejabberd/megaphone.sock\"

    [[listeners]]
    listen = \"0.0.0.0:5280\"
    service = \"http\"
    kind = \"http\"                    # or \"tcp\", for XMPP and MQTT

SIGTERM and SIGINT end it cleanly: ejabberd has drain_time to end its clients,
then the rest is closed and the links flushed. A second one ends it at once.
SIGUSR1 logs what there is.
Exit status: 0 ended as asked, 1 failed while running (a port that is taken),
2 the configuration or the command line is wrong.
docs/ecm.md lists every key, its unit and its default.";

/// Holds the clients' sockets at the edge and carries them all to ejabberd
/// over a few links.
#[derive(Debug, Parser)]
#[command(name = "megaphone-ecm", version, after_help = AFTER_HELP)]
#[command(group(ArgGroup::new("source").required(true).args(["config", "port_program"])))]
pub struct Cli {
    /// Read the configuration (TOML) from FILE and run.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Only check the configuration: print what was understood, or what is
    /// wrong with it (file, line and key), and end.
    #[arg(long)]
    pub check: bool,

    /// Run as an Erlang port: the configuration comes on stdin, as a 4-byte
    /// big-endian length and that many bytes of TOML; log lines go to stdout
    /// as `LEVEL message`; the end of stdin ends the program at once.
    #[arg(long)]
    pub port_program: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_source_of_configuration_is_required_and_only_one_allowed() {
        assert!(Cli::try_parse_from(["megaphone-ecm"]).is_err());
        assert!(Cli::try_parse_from(["megaphone-ecm", "--check"]).is_err());
        assert!(Cli::try_parse_from(["megaphone-ecm", "--config", "f", "--port-program"]).is_err());
        let cli = Cli::try_parse_from(["megaphone-ecm", "--config", "f", "--check"]).unwrap();
        assert!(cli.check);
        assert_eq!(cli.config, Some(PathBuf::from("f")));
    }
}
