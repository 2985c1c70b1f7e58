//! TLS on the link: who is let in, who is not, and what is said of it. The
//! node's end is rustls, as a server.

mod support;

use std::fs::Permissions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use megaphone_proto::control::{CloseReason, Control};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use support::*;
use tokio_rustls::rustls;

/// An authority, and the folder that everything of it is in.
struct Authority {
    folder: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        // Each another one, or a certificate would seem to be of both.
        let name = folder.path().display().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { folder, issuer };
        authority.write("ca.pem", &authority.issuer.pem());
        authority
    }

    /// A certificate for `name`, in files that are named for `who`.
    fn certify(&self, who: &str, name: &str) {
        self.certify_with(who, name, |_| {});
    }

    fn certify_with(&self, who: &str, name: &str, change: impl FnOnce(&mut CertificateParams)) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        change(&mut params);
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let certificate = params.signed_by(&key, issuer).unwrap();
        self.write(&format!("{who}.pem"), &certificate.pem());
        self.write(&format!("{who}.key"), &key.serialize_pem());
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.file(file);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }

    fn file(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// What a node with the certificate `who` speaks, to clients that show a
    /// certificate of ours if it is `mutual`.
    fn server(&self, who: &str, mutual: bool) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.file("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match mutual {
            true => builder.with_client_cert_verifier(verifier.build().unwrap()),
            false => builder.with_no_client_auth(),
        };
        let chain = CertificateDer::from_pem_file(self.file(&format!("{who}.pem"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.file(&format!("{who}.key"))).unwrap();
        Arc::new(builder.with_single_cert(vec![chain], key).unwrap())
    }
}

/// A configuration with TLS: `lines` go into `[backend.tls]`.
fn tls_config(address: &str, ca: &Path, lines: &str) -> String {
    let ca = ca.display();
    let tls = format!("[backend.tls]\nca_file = \"{ca}\"\n{lines}\n[[listeners]]");
    config(address, "").replacen("[[listeners]]", &tls, 1)
}

type TlsNode = StreamOwned<ServerConnection, TcpStream>;

/// Takes the next link and speaks TLS on it.
fn accept(backend: &Backend, server: &Arc<ServerConfig>) -> TlsNode {
    let connection = ServerConnection::new(Arc::clone(server)).unwrap();
    StreamOwned::new(connection, backend.accept_raw())
}

/// Takes in one frame.
fn frame(node: &mut TlsNode) -> Vec<u8> {
    let mut frame = read_exact(node, 32);
    let length: usize = std::str::from_utf8(&frame[..10]).unwrap().parse().unwrap();
    frame.extend(read_exact(node, length - 32));
    frame
}

/// Takes the hello and answers it.
fn greet(node: &mut TlsNode) {
    let hello = frame(node);
    assert!(hello[32..].starts_with(b"hello version=2 "), "{hello:?}");
    let line =
        b"hello version=2 name=test-node nonce=00ff window=16384 max_frame=65536 link=link-7\n";
    say(node, line);
}

fn say(node: &mut TlsNode, line: &[u8]) {
    let mut frame = Vec::new();
    megaphone_proto::frame::put_frame(megaphone_proto::ConnectionId::new(0), line, &mut frame);
    node.write_all(&frame).unwrap();
}

/// The next frame that begins with `verb`.
fn message(node: &mut TlsNode, verb: &str) -> String {
    loop {
        let line = String::from_utf8(frame(node).split_off(32)).unwrap();
        if line.starts_with(verb) {
            return line;
        }
    }
}

#[test]
fn a_link_may_be_tls_with_certificates_of_both() {
    let authority = Authority::new();
    authority.certify("node", "127.0.0.1");
    authority.certify("edge", "edge.example.org");
    let own = format!(
        "cert_file = \"{}\"\nkey_file = \"{}\"",
        authority.file("edge.pem").display(),
        authority.file("edge.key").display()
    );
    let backend = Backend::new();
    let ecm = Ecm::start(&tls_config(
        &backend.address(),
        &authority.file("ca.pem"),
        &own,
    ));
    let mut node = accept(&backend, &authority.server("node", true));
    greet(&mut node);
    ecm.line("link 1 up to ");
    assert_eq!(node.conn.peer_certificates().map(<[_]>::len), Some(1));

    let mut client = ecm.tcp_client();
    let open = message(&mut node, "open ");
    let id = open.split(' ').nth(1).unwrap();
    let id = megaphone_proto::ConnectionId::new(id.parse().unwrap());
    // More than one record and more than the socket takes at a time.
    let bytes = noise(5, 16_384);
    client.write_all(&bytes).unwrap();
    let mut got = Vec::new();
    while got.len() < bytes.len() {
        got.extend(frame(&mut node).split_off(32));
    }
    assert!(got == bytes);
    let mut back = Vec::new();
    megaphone_proto::frame::put_frame(id, &bytes, &mut back);
    back.extend(
        Control::Close {
            id,
            reason: CloseReason::Normal,
        }
        .to_frame(),
    );
    node.write_all(&back).unwrap();
    assert!(read_to_end(&mut client) == bytes);

    // The end that TLS has a word for is an orderly one.
    node.conn.send_close_notify();
    node.flush().unwrap();
    ecm.line("link 1 ");
}

/// Dials until the node has shaken hands or not, and returns what is said of
/// why there is no link.
fn refused(
    authority: &Authority,
    server: &Arc<ServerConfig>,
    address: impl Fn(&str) -> String,
    lines: &str,
) -> String {
    let backend = Backend::new();
    let config = tls_config(
        &address(&backend.address()),
        &authority.file("ca.pem"),
        lines,
    );
    let ecm = Ecm::start(&config);
    let mut node = accept(&backend, server);
    let _ = node.read(&mut [0; 1024]);
    drop(node);
    let line = ecm.line("link 1 cannot come up: ");
    let said = line.strip_prefix("warn link 1 cannot come up: ").unwrap();
    let said = said.rsplit_once("; next try in").unwrap().0;
    said.replace(&backend.address(), "ADDRESS")
        .replace(&authority.folder.path().display().to_string(), "FOLDER")
}

fn same(address: &str) -> String {
    address.to_owned()
}

#[test]
fn a_node_that_is_not_who_it_should_be_is_refused() {
    let (authority, other) = (Authority::new(), Authority::new());
    other.certify("node", "127.0.0.1");
    assert_eq!(
        refused(&authority, &other.server("node", false), same, ""),
        "TLS with ADDRESS failed: its certificate comes from no authority in FOLDER/ca.pem"
    );
    authority.certify("node", "node.example.org");
    assert_eq!(
        refused(&authority, &authority.server("node", false), same, ""),
        "TLS with ADDRESS failed: its certificate is not for 127.0.0.1 (server_name)"
    );
    authority.certify_with("node", "127.0.0.1", |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    assert_eq!(
        refused(&authority, &authority.server("node", false), same, ""),
        "TLS with ADDRESS failed: its certificate has expired"
    );
    authority.certify_with("node", "127.0.0.1", |params| {
        params.not_before = rcgen::date_time_ymd(3000, 1, 1);
    });
    assert_eq!(
        refused(&authority, &authority.server("node", false), same, ""),
        "TLS with ADDRESS failed: its certificate is not valid yet"
    );
}

#[test]
fn a_server_name_stands_for_the_address() {
    let authority = Authority::new();
    authority.certify("node", "node.example.org");
    let backend = Backend::new();
    let lines = "server_name = \"node.example.org\"";
    let config = tls_config(&backend.address(), &authority.file("ca.pem"), lines);
    let ecm = Ecm::start(&config);
    let mut node = accept(&backend, &authority.server("node", false));
    greet(&mut node);
    ecm.line("link 1 up to ");
}

#[test]
fn a_certificate_that_the_node_wants_to_see_is_named() {
    let authority = Authority::new();
    authority.certify("node", "127.0.0.1");
    let said = refused(&authority, &authority.server("node", true), same, "");
    let wants =
        "TLS with ADDRESS failed: it wants to see a certificate of ours (cert_file and key_file)";
    assert!(said.ends_with(wants), "{said}");
    let other = Authority::new();
    other.certify("edge", "edge.example.org");
    let own = format!(
        "cert_file = \"{}\"\nkey_file = \"{}\"",
        other.file("edge.pem").display(),
        other.file("edge.key").display()
    );
    let said = refused(&authority, &authority.server("node", true), same, &own);
    let refuses = "TLS with ADDRESS failed: it refuses our certificate: ";
    assert!(said.contains(refuses), "{said}");
}

#[test]
fn a_node_without_tls_is_said_to_have_none() {
    let authority = Authority::new();
    let backend = Backend::new();
    let ecm = Ecm::start(&tls_config(
        &backend.address(),
        &authority.file("ca.pem"),
        "",
    ));
    let mut node = backend.accept_raw();
    node.write_all(b"0000000053|00000000000000000000|error code=frame_error text=x\n")
        .unwrap();
    let line = ecm.line("link 1 cannot come up: ");
    let said = format!(
        "TLS with {} failed: what it says is not TLS",
        backend.address()
    );
    assert!(line.contains(&said), "{line}");
}

#[test]
fn renewed_files_count_at_the_next_dial_and_broken_ones_are_named() {
    let (authority, old) = (Authority::new(), Authority::new());
    authority.certify("node", "127.0.0.1");
    let server = authority.server("node", false);
    let ca = old.file("ca.pem");
    let backend = Backend::new();
    let ecm = Ecm::start(&tls_config(&backend.address(), &ca, ""));
    let _ = accept(&backend, &server).read(&mut [0; 1024]);
    ecm.line("its certificate comes from no authority in ");
    std::fs::write(&ca, "nothing").unwrap();
    let no_certificate = format!(
        "link 1 cannot come up: {}: no certificate can be read from it: no items found",
        ca.display()
    );
    std::thread::scope(|threads| {
        // It may be dialled with the old one once more.
        let accepting = threads.spawn(|| accept_good(&backend, &server));
        ecm.line(&no_certificate);
        std::fs::copy(authority.file("ca.pem"), &ca).unwrap();
        greet(&mut accepting.join().unwrap());
        ecm.line("link 1 up to ");
    });
}

/// Takes links until one trusts us.
fn accept_good(backend: &Backend, server: &Arc<ServerConfig>) -> TlsNode {
    loop {
        let mut node = accept(backend, server);
        while node.conn.is_handshaking() {
            if node.conn.complete_io(&mut node.sock).is_err() {
                break;
            }
        }
        if !node.conn.is_handshaking() {
            return node;
        }
    }
}

#[test]
fn check_names_the_file_that_is_wrong() {
    let authority = Authority::new();
    let other = Authority::new();
    authority.certify("edge", "edge.example.org");
    other.certify("edge", "edge.example.org");
    let file = |name: &str| authority.file(name).display().to_string();
    let check = |lines: &str| {
        let text = tls_config("127.0.0.1:6280", &authority.file("ca.pem"), lines);
        let config = support::file(&text);
        let name = config.path().to_str().unwrap();
        let output = binary()
            .args(["--config", name, "--check"])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8(said).unwrap().replace(name, "FILE")
    };
    let shown = check("");
    assert!(
        shown.contains(&format!(
            "  tls             ca_file={} own_certificate=none\n",
            file("ca.pem")
        )),
        "{shown}"
    );
    assert_eq!(
        check(&format!("cert_file = \"{}\"", file("edge.pem"))),
        "megaphone-ecm: FILE:8:1: backend.tls.cert_file: it needs key_file beside it\n"
    );
    let cert_file = format!("cert_file = \"{}\"\n", file("edge.pem"));
    let wrong_key = other.file("edge.key").display().to_string();
    let said = check(&format!("{cert_file}key_file = \"{wrong_key}\""));
    let pair = format!("{} cannot be used with {wrong_key}: ", file("edge.pem"));
    assert!(
        said.starts_with(&format!(
            "megaphone-ecm: FILE:8:1: backend.tls.cert_file: {pair}"
        )),
        "{said}"
    );
    std::fs::set_permissions(authority.file("edge.key"), Permissions::from_mode(0o644)).unwrap();
    let key_file = format!("key_file = \"{}\"", file("edge.key"));
    let said = check(&format!("{cert_file}{key_file}"));
    assert!(
        said.starts_with(&format!(
            "megaphone-ecm: FILE:9:1: backend.tls.key_file: {}: permissions 0644 are too open",
            file("edge.key")
        )),
        "{said}"
    );
    assert_eq!(
        check("server_name = \"not a name\""),
        "megaphone-ecm: FILE:8:1: backend.tls.server_name: \"not a name\" is no name of a host; say which one stands in the node's certificate\n"
    );
}
