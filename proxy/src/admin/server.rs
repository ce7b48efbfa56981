//! The admin servers: sockets and connections.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::routes::{Admin, Scope};

/// Where probes and scrapers find a sidecar, on all addresses.
pub const PUBLIC_PORT: u16 = 15020;

/// Longest wait for a request's head.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is nearly always a want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the admin server does not run.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address or path.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No thread or runtime.
    #[error("cannot start the admin thread: {0}")]
    Thread(io::Error),
}

/// The sockets, bound before the thread starts so that a taken port is an error at start.
#[derive(Debug)]
pub(super) struct Sockets {
    private: TcpListener,
    unix: Option<UnixListener>,
    public: Option<TcpListener>,
}

impl Sockets {
    /// Everything on `private` and the Unix socket; probes and metrics on the public port of a sidecar.
    pub(super) fn bind(private: SocketAddr, unix: Option<&Path>, public: bool) -> Result<Self, AdminError> {
        Ok(Self {
            private: tcp(private)?,
            unix: unix.map(unix_socket).transpose()?,
            public: public.then(all_addresses).transpose()?,
        })
    }

    /// Serves on a thread with a runtime of its own, which a busy data path cannot starve and which cannot hold up the data path.
    pub(super) fn serve(self, admin: Admin) -> Result<(), AdminError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AdminError::Thread)?;
        let work = move || runtime.block_on(self.run(Arc::new(admin)));
        std::thread::Builder::new().name("admin".to_owned()).spawn(work).map(drop).map_err(AdminError::Thread)
    }

    async fn run(self, admin: Arc<Admin>) {
        if let Some(socket) = self.public.and_then(into_tokio) {
            tokio::spawn(accept_tcp(socket, admin.clone(), Scope::Public));
        }
        if let Some(socket) = self.unix.and_then(|socket| report(tokio::net::UnixListener::from_std(socket))) {
            let admin = admin.clone();
            tokio::spawn(async move {
                loop {
                    match socket.accept().await {
                        Ok((io, _)) => drop(tokio::spawn(serve(io, admin.clone(), Scope::Private, None))),
                        Err(error) => pause(&error).await,
                    }
                }
            });
        }
        if let Some(socket) = into_tokio(self.private) {
            accept_tcp(socket, admin, Scope::Private).await;
        }
        std::future::pending::<()>().await;
    }
}

async fn accept_tcp(socket: tokio::net::TcpListener, admin: Arc<Admin>, scope: Scope) {
    loop {
        match socket.accept().await {
            Ok((io, _)) => {
                // An IPv4 address as one, also where the socket has it mapped into IPv6.
                let local = io.local_addr().ok().map(|address| address.ip().to_canonical());
                drop(tokio::spawn(serve(io, admin.clone(), scope, local)));
            }
            Err(error) => pause(&error).await,
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "admin connection not accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Serves one connection; how it ends is the client's affair.
pub(super) async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin,
    admin: Arc<Admin>,
    scope: Scope,
    local: Option<IpAddr>,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = admin.clone();
        async move {
            let response: Response<Full<Bytes>> = admin.respond(request.method(), request.uri(), scope, local).await;
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .serve_connection(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}

fn tcp(address: SocketAddr) -> Result<TcpListener, AdminError> {
    let listen = || {
        let socket = TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    listen().map_err(|source| AdminError::Listen { address: address.to_string(), source })
}

/// IPv6 with IPv4 mapped into it, or IPv4 alone where the kernel has no IPv6.
fn all_addresses() -> Result<TcpListener, AdminError> {
    let both = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PUBLIC_PORT);
    match tcp(both) {
        Err(AdminError::Listen { source, .. }) if source.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            tcp(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), PUBLIC_PORT))
        }
        other => other,
    }
}

fn unix_socket(path: &Path) -> Result<UnixListener, AdminError> {
    let listen = || {
        // A former process's socket; nothing else is removed.
        match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path) => fs::remove_file(path)?,
            Err(error) => return Err(error),
            Ok(socket) => return ready(socket, path),
        }
        ready(UnixListener::bind(path)?, path)
    };
    listen().map_err(|source| AdminError::Listen { address: PathBuf::from(path).display().to_string(), source })
}

fn is_stale(path: &Path) -> bool {
    // Connecting to a plain file is refused as well.
    fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && UnixStream::connect(path).is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn ready(socket: UnixListener, path: &Path) -> io::Result<UnixListener> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn into_tokio(socket: TcpListener) -> Option<tokio::net::TcpListener> {
    report(tokio::net::TcpListener::from_std(socket))
}

fn report<T>(socket: io::Result<T>) -> Option<T> {
    socket.inspect_err(|error| tracing::error!(%error, "an admin socket is not served")).ok()
}
