//! Frames as they pass an interface, kept in memory and searched: the proof of what is, and is not, readable on the wire.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use crate::Error;
use crate::netns::{Namespaces, on_fresh_thread};

/// A running capture. Dropping it stops it.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What a capture saw.
#[derive(Debug, Default, Clone)]
pub struct Captured {
    /// The frames' bytes from the Ethernet header on, one after the other.
    bytes: Vec<u8>,
    /// When each frame was seen, and where it ends in `bytes`.
    frames: Vec<(SystemTime, usize)>,
    /// Frames the kernel or the memory limit dropped: a capture with drops proves no absence.
    dropped: u64,
}

/// A capture keeps at most this many bytes; later frames count as dropped.
const LIMIT: usize = 512 << 20;

/// How long the reader waits for a frame before it looks whether it shall stop.
const POLL: Duration = Duration::from_millis(20);

/// How long a stopped reader goes on with what was queued.
const DRAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    captured: Mutex<Captured>,
}

impl Capture {
    /// Captures on every interface of `namespaces`; frames are seen from the moment this returns. `outgoing` adds what the namespace
    /// sends: on the bridge it would be each frame twice.
    pub(crate) async fn start(namespaces: Arc<Namespaces>, outgoing: bool) -> Result<Self, Error> {
        let socket = on_fresh_thread(move || {
            namespaces.enter_on_thread()?;
            open()
        })
        .await??;
        Self::read(socket, outgoing)
    }

    /// Captures on every interface of the network namespace that the caller is in. Needs the capability NET_RAW.
    ///
    /// # Errors
    /// If the kernel refuses the socket.
    pub fn here() -> Result<Self, Error> {
        Self::read(open()?, false)
    }

    fn read(socket: OwnedFd, outgoing: bool) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("weft-capture".into())
            .spawn(move || read(&socket, outgoing, &reader))
            .map_err(Error::io("start a thread"))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Whether one frame seen so far contains `needle`. A needle that TCP split over two frames is not found: choose a short one.
    pub fn contains(&self, needle: &[u8]) -> bool {
        self.lock().contains(needle)
    }

    /// The number of frames seen so far.
    pub fn frames(&self) -> usize {
        self.lock().frames.len()
    }

    /// Ends the capture: what was seen.
    pub fn stop(mut self) -> Captured {
        self.join();
        std::mem::take(&mut *self.lock())
    }

    fn join(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The reader does not panic; if it did, what it had seen is still there.
            let _ = thread.join();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Captured> {
        self.shared.captured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.join();
    }
}

impl Captured {
    /// Whether one frame contains `needle` (see [`Capture::contains`]).
    pub fn contains(&self, needle: &[u8]) -> bool {
        let finder = memchr::memmem::Finder::new(needle);
        self.frames().any(|frame| finder.find(frame).is_some())
    }

    /// Every frame from its Ethernet header on, in the order seen.
    pub fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.frames.iter().map(|&(_, end)| end));
        starts.zip(&self.frames).map(|(start, &(_, end))| &self.bytes[start..end])
    }

    /// All frames' bytes, one after the other.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Frames that passed but were not kept, because the kernel's queue or the memory limit was full. Unless 0, a capture proves no
    /// absence.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes a file that Wireshark and tcpdump read (pcap, link type Ethernet).
    pub fn write_pcap(&self, path: &Path) -> std::io::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        // Magic, version 2.4, time zone 0, accuracy 0, longest frame, link type 1.
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0x4_0000, 1] {
            file.write_all(&word.to_ne_bytes())?;
        }
        for (frame, (time, _)) in self.frames().zip(&self.frames) {
            let time = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let length = frame.len() as u32;
            for word in [time.as_secs() as u32, time.subsec_micros(), length, length] {
                file.write_all(&word.to_ne_bytes())?;
            }
            file.write_all(frame)?;
        }
        file.flush()
    }

    fn push(&mut self, frame: &[u8]) {
        if self.bytes.len() + frame.len() > LIMIT {
            self.dropped += 1;
            return;
        }
        self.bytes.extend_from_slice(frame);
        self.frames.push((SystemTime::now(), self.bytes.len()));
    }
}

/// A packet socket of the calling thread's network namespace, which queues frames of all its interfaces from now on.
fn open() -> Result<OwnedFd, Error> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::EthAll)
        .map_err(Error::os("open a packet socket"))?;
    let poll = TimeVal::new(0, POLL.as_micros() as i64);
    setsockopt(&socket, sockopt::ReceiveTimeout, &poll).map_err(Error::os("set a packet socket's time-out"))?;
    // A burst must not be dropped while the reader waits for a CPU. In a user namespace the limit of the machine applies instead.
    let queue = 64 << 20;
    if setsockopt(&socket, sockopt::RcvBufForce, &queue).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &queue).map_err(Error::os("set a packet socket's queue"))?;
    }
    Ok(socket)
}

/// Keeps frames until told to stop; then what is still queued, so that a frame sent before is always seen.
fn read(socket: &OwnedFd, outgoing: bool, shared: &Shared) {
    // With segmentation offload, frames between pods are larger than an MTU: up to 64 KiB, more with BIG TCP.
    let mut buffer = vec![0; 512 << 10];
    let mut stopped = None;
    loop {
        if shared.stop.load(Ordering::Relaxed) {
            // Frames never end on a busy network: those that come later than this were sent after the stop.
            if stopped.get_or_insert_with(Instant::now).elapsed() > DRAIN {
                break;
            }
        }
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, from)) => {
                let sent = from.is_some_and(|from| from.pkttype() == nix::libc::PACKET_OUTGOING);
                if outgoing || !sent {
                    shared.captured.lock().unwrap_or_else(PoisonError::into_inner).push(&buffer[..length]);
                }
            }
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::ENETDOWN) => {}
            Err(_) if stopped.is_none() => {}
            Err(_) => break,
        }
    }
    let dropped = dropped_by_kernel(socket);
    shared.captured.lock().unwrap_or_else(PoisonError::into_inner).dropped += dropped;
}

/// Frames the kernel could not queue (PACKET_STATISTICS, packet(7)).
#[allow(unsafe_code)]
fn dropped_by_kernel(socket: &OwnedFd) -> u64 {
    let mut statistics = nix::libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as nix::libc::socklen_t;
    // SAFETY: the pointers are to `statistics`, which the kernel fills with at most `length` bytes, and to `length`; both outlive the call.
    let answer = unsafe {
        nix::libc::getsockopt(
            socket.as_raw_fd(),
            nix::libc::SOL_PACKET,
            nix::libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if answer == 0 { u64::from(statistics.tp_drops) } else { 0 }
}
