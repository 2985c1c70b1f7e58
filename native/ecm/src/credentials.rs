//! What proves to a node who we are, and to us that it is the node: read
//! from files, when the program starts and again at each dial, so that what
//! was renewed counts without a restart.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use megaphone_proto::auth::{Secret, SecretError};
use megaphone_proto::limits::SECRET_MAX;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::rustls;

use crate::backend::{Backend, Tls};
use crate::values::BackendAddress;

/// The largest file of certificates or a key, in bytes: all authorities that
/// browsers know take a fifth of it.
const PEM_MAX: usize = 1024 * 1024;

/// Permissions that no file with a secret may have, see chmod(1): others may
/// do nothing, and the group may not write.
const TOO_OPEN: u32 = 0o027;

/// What is needed to dial one backend.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// What we share with the node.
    pub secret: Option<Secret>,
    /// How TLS is spoken, where it is.
    pub tls: Option<TlsTerms>,
}

/// How TLS is spoken with one backend.
#[derive(Debug, Clone)]
pub struct TlsTerms {
    /// Whom to trust and what to show.
    pub config: Arc<ClientConfig>,
    /// The name that must stand in the node's certificate.
    pub server_name: ServerName<'static>,
    /// Where its authority should be.
    pub ca_file: PathBuf,
}

/// Why there are no credentials. Each sentence names the file, where one is
/// concerned.
#[derive(Debug, thiserror::Error)]
pub enum NoCredentials {
    /// It cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// As it was named.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is a folder, a device, a pipe.
    #[error("{}: this is no file", .0.display())]
    NoFile(PathBuf),
    /// It has far too much in it.
    #[error("{}: it has more than {max} bytes", file.display())]
    Long {
        /// As it was named.
        file: PathBuf,
        /// In bytes.
        max: usize,
    },
    /// Too many may read it.
    #[error(
        "{}: permissions {mode:04o} are too open: only its owner may write it, and only its owner and group read it (chmod 600)",
        file.display()
    )]
    TooOpen {
        /// As it was named.
        file: PathBuf,
        /// As chmod(1) has them.
        mode: u32,
    },
    /// What is in it is no secret.
    #[error("{}: {error}", file.display())]
    Secret {
        /// As it was named.
        file: PathBuf,
        /// Why.
        error: SecretError,
    },
    /// What is in it is not PEM, or not what is wanted.
    #[error("{}: no {what} can be read from it: {error}", file.display())]
    Pem {
        /// As it was named.
        file: PathBuf,
        /// What was wanted.
        what: &'static str,
        /// Why.
        error: String,
    },
    /// One of two files was not named.
    #[error("it needs {0} beside it")]
    Alone(&'static str),
    /// No certificate can be for it.
    #[error("{0:?} is no name of a host; say which one stands in the node's certificate")]
    NoName(String),
    /// The certificate is not for the key, or is none that can be used.
    #[error("{} cannot be used with {}: {error}", files.0.display(), files.1.display())]
    Pair {
        /// The certificate's and the key's, as they were named.
        files: Box<(PathBuf, PathBuf)>,
        /// Why.
        error: Box<rustls::Error>,
    },
}

impl Credentials {
    /// Reads what `backend` names. It reads files, and so may block.
    ///
    /// # Errors
    /// The key of the configuration that names a file, and what is wrong with
    /// that.
    pub fn read(backend: &Backend) -> Result<Self, (&'static str, NoCredentials)> {
        let secret = match &backend.secret_file {
            Some(file) => Some(read_secret(file).map_err(|why| ("secret_file", why))?),
            None => None,
        };
        let tls = match &backend.tls {
            Some(tls) => Some(read_tls(tls, backend.address())?),
            None => None,
        };
        Ok(Self { secret, tls })
    }
}

fn read_secret(file: &Path) -> Result<Secret, NoCredentials> {
    // Room for the end of its line, too.
    let content = read(file, SECRET_MAX + 2, true)?;
    Secret::new(&content).map_err(|error| NoCredentials::Secret {
        file: file.to_owned(),
        error,
    })
}

fn read_tls(
    tls: &Tls,
    address: &BackendAddress,
) -> Result<TlsTerms, (&'static str, NoCredentials)> {
    let server_name = server_name(tls, address).map_err(|why| ("tls.server_name", why))?;
    let roots = read_roots(&tls.ca_file).map_err(|why| ("tls.ca_file", why))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has what the default versions need")
        .with_root_certificates(roots);
    let config = match (&tls.cert_file, &tls.key_file) {
        (None, None) => config.with_no_client_auth(),
        (Some(_), None) => return Err(("tls.cert_file", NoCredentials::Alone("key_file"))),
        (None, Some(_)) => return Err(("tls.key_file", NoCredentials::Alone("cert_file"))),
        (Some(cert_file), Some(key_file)) => {
            let chain = read_certificates(cert_file).map_err(|why| ("tls.cert_file", why))?;
            let key = read_key(key_file).map_err(|why| ("tls.key_file", why))?;
            let pair = |error| NoCredentials::Pair {
                files: Box::new((cert_file.clone(), key_file.clone())),
                error: Box::new(error),
            };
            let config = config.with_client_auth_cert(chain, key);
            config.map_err(|error| ("tls.cert_file", pair(error)))?
        }
    };
    Ok(TlsTerms {
        config: Arc::new(config),
        server_name,
        ca_file: tls.ca_file.clone(),
    })
}

/// The name that must stand in the node's certificate.
fn server_name(tls: &Tls, address: &BackendAddress) -> Result<ServerName<'static>, NoCredentials> {
    let name = match (&tls.server_name, address) {
        (Some(name), _) => name.clone(),
        (None, BackendAddress::Tcp { host, .. }) => host.clone(),
        (None, BackendAddress::Unix(_)) => address.to_string(),
    };
    ServerName::try_from(name.clone()).map_err(|_| NoCredentials::NoName(name))
}

fn read_roots(file: &Path) -> Result<RootCertStore, NoCredentials> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| pem(file, "certificate of an authority", error))?;
    }
    Ok(roots)
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, NoCredentials> {
    let text = read(file, PEM_MAX, false)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|error| pem(file, "certificate", error))?;
    match certificates.is_empty() {
        false => Ok(certificates),
        true => Err(pem(file, "certificate", PemError::NoItemsFound)),
    }
}

fn read_key(file: &Path) -> Result<PrivateKeyDer<'static>, NoCredentials> {
    let text = read(file, PEM_MAX, true)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| pem(file, "private key", error))
}

fn pem(file: &Path, what: &'static str, error: impl ToString) -> NoCredentials {
    NoCredentials::Pem {
        file: file.to_owned(),
        what,
        error: error.to_string(),
    }
}

/// Reads a file of at most `max` bytes, which if it is `private` not all may
/// read.
fn read(file: &Path, max: usize, private: bool) -> Result<Vec<u8>, NoCredentials> {
    let failed = |error| NoCredentials::Read {
        file: file.to_owned(),
        error,
    };
    // Asked before it is opened, which would wait for ever on a pipe.
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(NoCredentials::NoFile(file.to_owned()));
    }
    let opened = File::open(file).map_err(failed)?;
    let mode = opened.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if private && mode & TOO_OPEN != 0 {
        return Err(NoCredentials::TooOpen {
            file: file.to_owned(),
            mode,
        });
    }
    let mut content = Vec::new();
    opened
        .take(max as u64 + 1)
        .read_to_end(&mut content)
        .map_err(failed)?;
    if content.len() > max {
        return Err(NoCredentials::Long {
            file: file.to_owned(),
            max,
        });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, set_permissions, write};

    fn file(content: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        write(file.path(), content).unwrap();
        set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        file
    }

    /// The error, without the file it must name.
    fn secret_error(content: &[u8], mode: u32) -> String {
        let file = file(content, mode);
        let error = read_secret(file.path()).unwrap_err().to_string();
        let named = format!("{}: ", file.path().display());
        error.strip_prefix(&named).expect(&error).to_owned()
    }

    #[test]
    fn a_secret_is_its_file_without_the_end_of_the_line() {
        let with = file(b"0123456789abcdef\n", 0o640);
        let without = file(b"0123456789abcdef", 0o400);
        assert_eq!(
            read_secret(with.path()).unwrap(),
            read_secret(without.path()).unwrap()
        );
        let longest = file(&[&[b'x'; SECRET_MAX][..], b"\r\n"].concat(), 0o600);
        assert!(read_secret(longest.path()).is_ok());
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        for mode in [0o644, 0o604, 0o601, 0o620, 0o666] {
            assert_eq!(
                secret_error(b"0123456789abcdef", mode),
                format!(
                    "permissions {mode:04o} are too open: only its owner may write it, and only its owner and group read it (chmod 600)"
                )
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_said_and_not_shown() {
        assert_eq!(
            secret_error(b"short\n", 0o600),
            "a secret has at least 16 bytes, this one has 5"
        );
        assert_eq!(
            secret_error(&[b'x'; SECRET_MAX + 1], 0o600),
            "a secret has at most 1024 bytes, this one has more"
        );
        assert_eq!(
            secret_error(&[b'x'; SECRET_MAX + 3], 0o600),
            "it has more than 1026 bytes"
        );
        let missing = read_secret(Path::new("/does/not/exist")).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "/does/not/exist: No such file or directory (os error 2)"
        );
        let folder = read_secret(Path::new("/")).unwrap_err();
        assert_eq!(folder.to_string(), "/: this is no file");
        let secret = file(b"a secret that is one", 0o600);
        let shown = format!("{:?}", read_secret(secret.path()).unwrap());
        assert!(!shown.contains("that is one"), "{shown}");
    }

    #[test]
    fn what_is_no_certificate_or_key_is_said() {
        let text = file(b"-----BEGIN NOTHING-----\n", 0o600);
        let nothing = read_certificates(file(b"", 0o644).path()).unwrap_err();
        assert!(
            nothing
                .to_string()
                .ends_with(": no certificate can be read from it: no items found"),
            "{nothing}"
        );
        assert!(read_certificates(text.path()).is_err());
        let key = read_key(file(b"", 0o600).path()).unwrap_err().to_string();
        assert!(
            key.contains(": no private key can be read from it: "),
            "{key}"
        );
        let open = read_key(file(b"", 0o644).path()).unwrap_err().to_string();
        assert!(open.contains(": permissions 0644 are too open"), "{open}");
    }
}
