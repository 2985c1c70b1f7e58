//! A configuration as `--check` shows it: every value, defaults included.

use std::fmt;

use crate::backend::Backend;
use crate::config::Config;
use crate::limits;

/// Shows a configuration.
pub struct Summary<'a>(pub &'a Config);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = self.0;
        let open_files = limits::raise_open_files();
        writeln!(f, "The configuration is valid.")?;
        writeln!(f, "name              {}", config.name)?;
        writeln!(f, "protocol          {}", config.protocol.get())?;
        writeln!(f, "links             {}", config.links.get())?;
        writeln!(f, "balance           {}", config.balance)?;
        writeln!(f, "window            {} bytes", config.window.get())?;
        writeln!(f, "max_frame         {} bytes", config.max_frame.get())?;
        writeln!(f, "connect_wait      {}", config.connect_wait)?;
        writeln!(f, "max_waiting       {}", config.max_waiting.get())?;
        match config.open_rate {
            Some(rate) => writeln!(f, "open_rate         {} a second", rate.get())?,
            None => writeln!(f, "open_rate         as they come")?,
        }
        let clients = limits::max_clients(config, open_files);
        writeln!(
            f,
            "max_clients       {clients} here, where {open_files} files may be open"
        )?;
        let buffered = config.max_buffered.get();
        writeln!(f, "max_buffered      {buffered} bytes")?;
        writeln!(f, "heartbeat         {}", config.heartbeat)?;
        writeln!(f, "resume_timeout    {}", config.resume_timeout)?;
        let buffer = config.resume_buffer.get();
        writeln!(f, "resume_buffer     {buffer} bytes")?;
        writeln!(f, "close_timeout     {}", config.close_timeout)?;
        writeln!(f, "drain_time        {}", config.drain_time)?;
        writeln!(f, "shutdown_timeout  {}", config.shutdown_timeout)?;
        for backend in config.backends() {
            write_backend(f, backend)?;
        }
        for listener in &config.listeners {
            let address = listener.listen.get_ref().0;
            let (service, kind, backlog) =
                (&listener.service, listener.kind, listener.backlog.get());
            write!(
                f,
                "listener          {address} service={service} kind={kind} backlog={backlog}"
            )?;
            if let Some(bytes) = listener.send_buffer {
                write!(f, " send_buffer={}", bytes.get())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn write_backend(f: &mut fmt::Formatter<'_>, backend: &Backend) -> fmt::Result {
    writeln!(f, "backend           {}", backend.address())?;
    writeln!(f, "  connect_timeout {}", backend.connect_timeout)?;
    let (min, max) = (backend.reconnect_min, backend.reconnect_max);
    writeln!(f, "  reconnect       {min} to {max}")?;
    if backend.secret_file.is_some() {
        writeln!(f, "  secret          one is set")?;
    }
    if let Some(tls) = &backend.tls {
        let own = match tls.cert_file {
            Some(_) => "shown",
            None => "none",
        };
        let ca_file = tls.ca_file.display();
        writeln!(
            f,
            "  tls             ca_file={ca_file} own_certificate={own}"
        )?;
    }
    Ok(())
}
