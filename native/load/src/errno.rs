//! What an I/O error is called when errors are counted.

use std::io;

/// `what: ECONNREFUSED`: the errno's name if it is one that a network gives, else its number, else
/// what kind of error it is (of TLS, say).
pub fn kind(what: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => match name(number) {
            Some(name) => format!("{what}: {name}"),
            None => format!("{what}: errno {number}"),
        },
        None => format!("{what}: {error}"),
    }
}

fn name(number: i32) -> Option<&'static str> {
    use rustix::io::Errno;
    Some(match Errno::from_raw_os_error(number) {
        Errno::ACCESS => "EACCES",
        Errno::ADDRINUSE => "EADDRINUSE",
        Errno::ADDRNOTAVAIL => "EADDRNOTAVAIL",
        Errno::AFNOSUPPORT => "EAFNOSUPPORT",
        Errno::CONNABORTED => "ECONNABORTED",
        Errno::CONNREFUSED => "ECONNREFUSED",
        Errno::CONNRESET => "ECONNRESET",
        Errno::HOSTDOWN => "EHOSTDOWN",
        Errno::HOSTUNREACH => "EHOSTUNREACH",
        Errno::INVAL => "EINVAL",
        Errno::MFILE => "EMFILE",
        Errno::NETDOWN => "ENETDOWN",
        Errno::NETUNREACH => "ENETUNREACH",
        Errno::NFILE => "ENFILE",
        Errno::NOBUFS => "ENOBUFS",
        Errno::NOMEM => "ENOMEM",
        Errno::NOTCONN => "ENOTCONN",
        Errno::PERM => "EPERM",
        Errno::PIPE => "EPIPE",
        Errno::TIMEDOUT => "ETIMEDOUT",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_that_manuals_use() {
        let refused = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .and_then(std::net::TcpStream::connect)
            .expect_err("nobody listens there any more");
        assert_eq!(kind("connect", &refused), "connect: ECONNREFUSED");
        let odd = io::Error::from_raw_os_error(133);
        assert_eq!(kind("read", &odd), "read: errno 133");
        let other = io::Error::other("bad certificate");
        assert_eq!(kind("tls", &other), "tls: bad certificate");
    }
}
