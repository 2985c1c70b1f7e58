//! The configuration of a node: the same for both sides but for who listens.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::figure::count;
use crate::rig::link::LinkAddress;

/// The domain whose users are anonymous.
pub const ANONYMOUS: &str = "anon.localhost";

/// The domain whose users have accounts, with SCRAM.
pub const REGISTERED: &str = "localhost";

/// Arguments of `erl`, for both sides: what a good administrator of many users would set. Schedulers do not spin,
/// for on a small machine they would only take the processor from the generator.
pub const ERL: &[&str] = &[
    "+P",
    "4000000",
    "+Q",
    "1048576",
    "+sbwt",
    "none",
    "+sbwtdcpu",
    "none",
    "+sbwtdio",
    "none",
    "-env",
    "ERL_FULLSWEEP_AFTER",
    "10",
];

/// Connections that wait to be accepted, of each TCP listener on either side.
pub const BACKLOG: u32 = 4096;

/// Connections of a service that are opened and not yet started, on megaphone's listener: what [`BACKLOG`] and the
/// clients' repeated SYNs are to a TCP listener, for thousands come at once here.
pub const ACCEPT_QUEUE: u32 = 20_000;

/// What serves HTTP and XMPP over TCP on megaphone's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Front {
    /// megaphone's own modules, with `mod_megaphone`, which makes idle users small.
    #[value(name = "megaphone_http")]
    Megaphone,
    /// ejabberd's, on virtual sockets.
    #[value(name = "ejabberd_http")]
    Ejabberd,
}

/// The services and what they are given to, in this order: name, and options of the listener. On megaphone's side
/// [`Front`] says what serves the first two.
pub const SERVICES: &[(&str, &str)] = &[
    (
        "http",
        "module: ejabberd_http, request_handlers: {/bosh: mod_bosh, /ws: ejabberd_http_ws, /ok: bench_handler}",
    ),
    (
        "c2s",
        "module: ejabberd_c2s, shaper: none, max_stanza_size: 262144",
    ),
    ("bulk", "module: bench_bulk, supervisor: false"),
    ("echo", "module: bench_echo, supervisor: false"),
];

/// Where a node listens.
#[derive(Debug)]
pub enum Listening {
    /// Stock: on an address for each of [`SERVICES`].
    Services(Vec<SocketAddr>),
    /// megaphone: for links.
    Links(LinkAddress),
}

/// `ejabberd.yml`. megaphone's listener has the lines of `options` besides.
pub fn yaml(front: Front, listening: &Listening, options: &[String]) -> String {
    let mut text = String::from(HEAD);
    match listening {
        Listening::Links(address) => {
            let own = [
                "module: megaphone".to_owned(),
                format!("accept_queue: {ACCEPT_QUEUE}"),
            ];
            let lines = address.options().into_iter().chain(own);
            for (number, line) in lines.chain(options.iter().cloned()).enumerate() {
                let dash = if number == 0 { "-" } else { " " };
                let _ = writeln!(text, "  {dash} {line}");
            }
            let _ = writeln!(text, "    services:");
            for (name, what) in SERVICES {
                let what = match front {
                    Front::Megaphone => what
                        .replace("module: ejabberd_http,", "module: megaphone_http,")
                        .replace("module: ejabberd_c2s,", "module: megaphone_c2s,"),
                    Front::Ejabberd => (*what).to_owned(),
                };
                let _ = writeln!(text, "      {name}: {{{what}}}");
            }
        }
        Listening::Services(addresses) => {
            for ((_, what), address) in SERVICES.iter().zip(addresses) {
                let port = address.port();
                let _ = writeln!(
                    text,
                    "  - {{port: {port}, ip: \"127.0.0.1\", backlog: {BACKLOG}, {what}}}"
                );
            }
        }
    }
    text.push_str(MODULES);
    if matches!(listening, Listening::Links(_)) && front == Front::Megaphone {
        text.push_str("  mod_megaphone: {}\n");
    }
    text
}

const HEAD: &str = "\
hosts: [localhost, anon.localhost]
loglevel: warning
auth_password_format: scram
host_config:
  anon.localhost:
    auth_method: [anonymous]
    anonymous_protocol: sasl_anon
shaper_rules: {}
listen:
";

/// No `mod_roster`: anonymous users have no contacts, and its table is on disk (dets), where one process reads it for
/// all. Who logs in tens of thousands in a minute has it in a database; here their sessions would wait for the disk.
const MODULES: &str = "\
modules:
  mod_bosh: {max_inactivity: 120, max_pause: 120}
  mod_carboncopy: {}
  mod_disco: {}
  mod_stream_mgmt: {}
";

/// How both sides are set up, as Markdown: for the document, from what is really used.
pub fn description() -> String {
    let links = Listening::Links(LinkAddress::Unix("/tmp/megaphone.sock".into()));
    format!(
        "Each node is `erl {}`, for both sides. Below is megaphone's configuration, with one listener for links, on a \
         Unix socket, as for an edge on ejabberd's machine; in front of it is a `megaphone-ecm` for every {} clients, each \
         with its defaults (but `send_buffer` for the bulk service, as `bench_bulk` sets it on a socket of its own). Links \
         are TCP over loopback in parts 6 and 7, and for the million connections of part 8: there the other end is, or \
         stands beside, something that speaks TCP. `make bench LINK=tcp` measures everything so, which is what an edge on a \
         machine of its own is nearer to: a write to a TCP socket costs several times one to a Unix socket, at either end. \
         Stock's configuration differs only in that each of the services is a listener of its own, on a port of its own, with \
         `backlog: {BACKLOG}`. There is no `mod_roster` for either: with Mnesia its table is \
         read by one process from the disk, which tens of thousands of logins in a minute wait for.",
        ERL.join(" "),
        count(super::CLIENTS)
    ) + &format!(
        "\n\n```yaml\n{}\n```\n",
        yaml(Front::Megaphone, &links, &[]).trim_end()
    )
}
