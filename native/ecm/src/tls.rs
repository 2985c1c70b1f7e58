//! TLS on a link, as the side that dials.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::{AlertDescription, CertificateError, Error};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream, rustls};

use crate::credentials::TlsTerms;

/// Shakes hands over `stream`.
///
/// # Errors
/// A sentence's end: what is wrong with the peer, or what it does not like.
pub async fn shake_hands(stream: TcpStream, terms: &TlsTerms) -> io::Result<TlsStream<TcpStream>> {
    let connector = TlsConnector::from(terms.config.clone());
    let name = terms.server_name.clone();
    let shaken = connector.connect(name, stream).await;
    shaken.map_err(|error| match explain(&error, Some(terms)) {
        Some(sentence) => io::Error::new(error.kind(), sentence),
        None => error,
    })
}

/// A stream that says in plain words why TLS failed: in version 1.3 a node
/// refuses a certificate only after the handshake.
pub struct Explained<T> {
    /// The stream.
    pub input: T,
    /// Whose it is, as it is configured.
    pub peer: String,
}

impl<T: AsyncRead + Unpin> AsyncRead for Explained<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.input).poll_read(context, buffer));
        let peer = &self.peer;
        Poll::Ready(read.map_err(|error| match explain(&error, None) {
            Some(sentence) => {
                io::Error::new(error.kind(), format!("TLS with {peer} failed: {sentence}"))
            }
            None => error,
        }))
    }
}

/// `error` in plain words, where it is one of TLS.
fn explain(error: &io::Error, terms: Option<&TlsTerms>) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref()?;
    Some(sentence(inner, terms))
}

fn sentence(error: &Error, terms: Option<&TlsTerms>) -> String {
    match (error, terms) {
        (Error::InvalidCertificate(reason), Some(terms)) => certificate_sentence(reason, terms),
        (Error::AlertReceived(alert), _) => alert_sentence(*alert),
        (Error::InvalidMessage(_), _) => "what it says is not TLS".to_owned(),
        _ => error.to_string(),
    }
}

fn certificate_sentence(reason: &CertificateError, terms: &TlsTerms) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, NotValidForName, NotValidForNameContext,
        NotValidYet, NotValidYetContext, UnknownIssuer,
    };
    let name = terms.server_name.to_str();
    match reason {
        UnknownIssuer | BadSignature => format!(
            "its certificate comes from no authority in {}",
            terms.ca_file.display()
        ),
        Expired | ExpiredContext { .. } => "its certificate has expired".to_owned(),
        NotValidYet | NotValidYetContext { .. } => "its certificate is not valid yet".to_owned(),
        NotValidForName | NotValidForNameContext { .. } => {
            format!("its certificate is not for {name} (server_name)")
        }
        other => format!("its certificate cannot be used: {other}"),
    }
}

fn alert_sentence(alert: AlertDescription) -> String {
    use AlertDescription::{
        BadCertificate, CertificateExpired, CertificateRequired, CertificateRevoked,
        CertificateUnknown, UnknownCA, UnsupportedCertificate,
    };
    match alert {
        CertificateRequired => {
            "it wants to see a certificate of ours (cert_file and key_file)".to_owned()
        }
        BadCertificate
        | CertificateExpired
        | CertificateRevoked
        | CertificateUnknown
        | UnknownCA
        | UnsupportedCertificate => {
            format!("it refuses our certificate: {alert:?}")
        }
        other => format!("it ended TLS with the alert {other:?}"),
    }
}
