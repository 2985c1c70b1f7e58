//! Brings one link up: has it dialled and shakes hands.

use std::sync::Arc;

use megaphone_proto::{LinkConfig, Role};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::app::App;
use crate::dial::{Connected, NotUp, Output, connect};
use crate::ids::Ids;
use crate::link::{Link, Terms};
use crate::reader::{LinkEnd, Reader};

const NO_ANSWER: &str = "the connection was not answered";
const NO_HELLO: &str =
    "ejabberd did not answer the hello (does it speak only version 1? then set protocol = 1)";

/// A link that has come up.
pub struct Up {
    /// As everyone sees it.
    pub link: Arc<Link>,
    /// What comes over it.
    pub reader: Reader,
    /// Where it is written to.
    pub output: Output,
    /// What is logged once clients can come.
    pub sentence: String,
}

/// Dials link `number` and shakes hands.
///
/// # Errors
/// No link came up within `connect_timeout`.
pub async fn dial(app: &App, number: usize) -> Result<Up, NotUp> {
    let backend = app.config.backend_of(number);
    let allowed = backend.connect_timeout.get();
    let mut connected = false;
    let dialled = timeout(allowed, async {
        let stream = connect(app, backend).await?;
        connected = true;
        shake_hands(app, number, stream).await
    });
    match dialled.await {
        Ok(dialled) => dialled,
        Err(_) => {
            let why = if connected { NO_HELLO } else { NO_ANSWER };
            Err(NotUp::Late(humantime::format_duration(allowed), why))
        }
    }
}

async fn shake_hands(
    app: &App,
    number: usize,
    Connected { input, mut output, .. }: Connected,
) -> Result<Up, NotUp> {
    let config = &app.config;
    let mut protocol = LinkConfig::new(Role::Edge, config.name.as_str(), nonce()?);
    protocol.version = config.protocol.as_u32();
    protocol.window = config.window.as_u32();
    protocol.max_content = config.max_frame.as_u32();
    let protocol = megaphone_proto::Link::new(protocol);
    if protocol.version() != Some(1) {
        let hello = protocol.hello().to_frame();
        output.write_all(&hello).await.map_err(LinkEnd::Write)?;
    }
    let mut reader = Reader::new(input, protocol, config.window.as_usize());
    let version = reader.handshake().await?;
    let terms = Terms {
        number,
        version,
        conn: reader.protocol().new_conn(),
        max_content: reader.protocol().max_content_to_send(),
        max_connections: app.places.all() as usize,
    };
    let address = config.backend_of(number).address();
    let sentence = format!(
        "link {number} up to {address} version={version}{}",
        named(reader.protocol())
    );
    let link = Arc::new(Link::new(terms, Ids::new()?));
    Ok(Up {
        link,
        reader,
        output,
        sentence,
    })
}

/// 128 random bits in hex.
fn nonce() -> Result<String, getrandom::Error> {
    Ok(format!(
        "{:016x}{:016x}",
        getrandom::u64()?,
        getrandom::u64()?
    ))
}

/// What ejabberd calls itself and the link, for the log.
fn named(protocol: &megaphone_proto::Link) -> String {
    match protocol.peer() {
        Some(hello) => format!(
            " peer={:?} link={:?}",
            hello.name,
            hello.link.as_deref().unwrap_or("")
        ),
        None => String::new(),
    }
}
