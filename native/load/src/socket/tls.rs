//! TLS on a socket: rustls, without blocking.

use std::io::{self, Read};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use super::{Received, Traffic, take};
use crate::target::{Target, Transport};

/// What all TLS connections of a worker share.
#[derive(Debug)]
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Reads the system's certificates, unless any will do. The error is for a person.
    pub(super) fn new(target: &Target) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let mut config = if target.insecure {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
                .with_no_client_auth()
        } else {
            builder
                .with_root_certificates(system_roots()?)
                .with_no_client_auth()
        };
        // Users do not share what makes a second handshake cheap: each is somebody else.
        config.resumption = Resumption::disabled();
        config.alpn_protocols = match target.transport {
            Transport::C2s => Vec::new(),
            Transport::WebSocket | Transport::Bosh => vec![b"http/1.1".to_vec()],
        };
        let name = target.tls_name().to_owned();
        let name = ServerName::try_from(name)
            .map_err(|_| format!("{} is no name for a certificate", target.tls_name()))?;
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }

    /// A connection that has sent nothing yet.
    pub(super) fn connection(&self) -> Result<ClientConnection, rustls::Error> {
        let mut connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone())?;
        // What is written is small, and kept here when the kernel does not take it.
        connection.set_buffer_limit(None);
        Ok(connection)
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(
            "this system has no certificates to check the server's by (Debian: \
             ca-certificates); or take any certificate, with --insecure"
                .into(),
        );
    }
    Ok(roots)
}

/// Goes on with the handshake as far as it goes now.
pub(super) fn handshake(
    tls: &mut ClientConnection,
    stream: &mut TcpStream,
    traffic: &mut Traffic,
) -> io::Result<()> {
    loop {
        write(tls, stream, traffic)?;
        if !tls.is_handshaking() {
            return Ok(());
        }
        match fill(tls, stream, traffic)? {
            Received::Bytes(_) => {}
            Received::Nothing => return Ok(()),
            Received::End => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads what the peer has written, decrypted.
pub(super) fn read(
    tls: &mut ClientConnection,
    stream: &mut TcpStream,
    buffer: &mut [u8],
    traffic: &mut Traffic,
) -> io::Result<Received> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Ended without TLS's goodbye: XMPP has its own.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Received::End),
            result => return take(result),
        }
        match fill(tls, stream, traffic)? {
            Received::Bytes(_) => write(tls, stream, traffic)?,
            Received::Nothing => return Ok(Received::Nothing),
            Received::End => return Ok(Received::End),
        }
    }
}

/// Reads once from the stream, and decrypts.
fn fill(
    tls: &mut ClientConnection,
    stream: &mut TcpStream,
    traffic: &mut Traffic,
) -> io::Result<Received> {
    let received = take(tls.read_tls(stream))?;
    if let Received::Bytes(count) = received {
        traffic.read += count as u64;
        if let Err(error) = tls.process_new_packets() {
            // The peer is told why; it may be gone.
            let _ = tls.write_tls(stream);
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
    }
    Ok(received)
}

/// Writes what is encrypted, as far as the kernel takes it.
pub(super) fn write(
    tls: &mut ClientConnection,
    stream: &mut TcpStream,
    traffic: &mut Traffic,
) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => traffic.written += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Takes any certificate: for a server on one's own machine, with a certificate of its own.
/// What is signed with the certificate's key is checked all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
