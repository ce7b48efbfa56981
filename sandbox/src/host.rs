//! The part of a rootless process that stays in the host's network: it listens there on request and hands the sockets over.
//!
//! A process inside a user namespace cannot enter the network it came from, but a socket keeps the network it was made in. So before the
//! process moves, it leaves a child behind that makes sockets for it.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv, recvmsg, sendmsg,
    socketpair,
};
use nix::unistd::{ForkResult, fork};

use crate::Error;

/// The connection to the child in the host's network. The child ends when it is closed.
#[derive(Debug)]
pub(crate) struct HostSide(Mutex<OwnedFd>);

impl HostSide {
    /// Leaves a child behind. The process must have one thread.
    #[allow(unsafe_code)]
    pub(crate) fn fork() -> Result<Self, Error> {
        // Packets, not a stream: one request, one answer.
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(Error::os("make a pair of sockets"))?;
        // SAFETY: the process has one thread (the caller checked), so the child may use everything it inherits.
        match unsafe { fork() }.map_err(Error::os("fork"))? {
            ForkResult::Parent { .. } => Ok(Self(Mutex::new(near))),
            ForkResult::Child => {
                drop(near);
                // Out of the terminal's foreground group, so that Ctrl-C reaches only the parent, whose end then ends this.
                let _ = nix::unistd::setpgid(nix::unistd::Pid::from_raw(0), nix::unistd::Pid::from_raw(0));
                serve(&far);
                std::process::exit(0)
            }
        }
    }

    /// A listener on `address` of the host.
    pub(crate) fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sendmsg::<()>(
            connection.as_raw_fd(),
            &[IoSlice::new(address.to_string().as_bytes())],
            &[],
            MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        let mut code = [0; 4];
        let mut space = nix::cmsg_space!([RawFd; 1]);
        let mut parts = [IoSliceMut::new(&mut code)];
        let answer = recvmsg::<()>(connection.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let sockets = answer
            .cmsgs()?
            .find_map(|message| if let ControlMessageOwned::ScmRights(fds) = message { Some(fds) } else { None });
        match sockets.as_deref() {
            Some([socket]) => Ok(adopt(*socket)),
            _ => Err(match i32::from_ne_bytes(code) {
                0 => io::ErrorKind::BrokenPipe.into(),
                code => io::Error::from_raw_os_error(code),
            }),
        }
    }
}

/// Answers requests until the parent is gone.
fn serve(connection: &OwnedFd) {
    let mut request = [0; 128];
    loop {
        let length = match recv(connection.as_raw_fd(), &mut request, MsgFlags::empty()) {
            Ok(0) => return,
            Ok(length) => length,
            Err(nix::errno::Errno::EINTR) => continue,
            Err(_) => return,
        };
        let address = std::str::from_utf8(&request[..length]).ok().and_then(|text| text.parse::<SocketAddr>().ok());
        let listener =
            address.ok_or_else(|| io::Error::from_raw_os_error(nix::libc::EINVAL)).and_then(TcpListener::bind);
        let sent = match &listener {
            Ok(listener) => {
                let sockets = [listener.as_raw_fd()];
                answer(connection, 0, &[ControlMessage::ScmRights(&sockets)])
            }
            Err(error) => answer(connection, error.raw_os_error().unwrap_or(nix::libc::EINVAL), &[]),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn answer(connection: &OwnedFd, code: i32, sockets: &[ControlMessage<'_>]) -> nix::Result<usize> {
    sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(&code.to_ne_bytes())], sockets, MsgFlags::MSG_NOSIGNAL, None)
}

#[allow(unsafe_code)]
fn adopt(socket: RawFd) -> TcpListener {
    // SAFETY: the kernel has just made this descriptor for us while receiving the message; nothing else knows it.
    unsafe { TcpListener::from_raw_fd(socket) }
}
