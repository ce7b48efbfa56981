//! Local "pods": network namespaces on a bridge, with their own addresses, hosts file and processes.
//!
//! A [`Sandbox`] is a small network on one machine. It is what `weft demo` runs its shop in, and what the namespace tests of the other
//! crates stand on. Nothing here knows what a service mesh is, except that a pod can have traffic redirected ([`Pod::redirect`]).
//!
//! ```text
//!  host ── veth `weft-N` 198.18.N.254 ──┐
//!                                       │ bridge 198.18.N.1, in a namespace of its own
//!  pod a ── eth0 198.18.N.2 ── veth ────┤
//!  pod b ── eth0 198.18.N.3 ── veth ────┘
//! ```
//!
//! The bridge has a namespace of its own, so that the host's firewall, forwarding and `br_netfilter` settings (Docker sets all three)
//! cannot change what happens between pods, and so that everything but one directory vanishes by itself when the owner dies: every
//! namespace is held only by file descriptors of the owner. Addresses outside the sandbox (the services' virtual addresses among them) are
//! routed to the bridge, which answers "no route" at once.
//!
//! | module | job |
//! |---|---|
//! | [`mod@enter`] | get the privileges: be root, or become root of a new user namespace |
//! | [`sandbox`] | the network as a whole: start, hosts' names, stop |
//! | [`pod`], [`process`] | one pod; one process in it |
//! | [`capture`] | frames on the bridge or inside a pod |
//! | `state` | the runtime directory: locks, and cleaning up after a killed owner |
//! | `publish`, `host` | ports of the host that lead to pods, also from a user namespace |
//! | `fabric`, `netns`, `link`, `files` | the bridge; namespaces, netlink, private mounts |
//! | [`testing`] | a test harness whose tests each run in a fresh process |
//!
//! State is kept below `/run/weft`, or where the user may not write there, `$XDG_RUNTIME_DIR/weft` or `/tmp/weft-<uid>`; the environment
//! variable `WEFT_RUNTIME_DIR` overrides.
//!
//! # Example
//! ```no_run
//! use weft_sandbox::{Config, Mode, PodSpec, Sandbox};
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     weft_sandbox::enter(Mode::Auto)?; // before any thread exists
//!     tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//!         let sandbox = Sandbox::start(Config::default()).await?;
//!         let pod = sandbox.add_pod(PodSpec::named("web")).await?;
//!         let mut command = std::process::Command::new("/usr/bin/env");
//!         command.arg("hostname");
//!         let process = pod.spawn("hostname", command).await?;
//!         process.wait().await;
//!         assert_eq!(process.log()?, "web\n");
//!         sandbox.stop().await;
//!         Ok(())
//!     })
//! }
//! ```

pub mod capture;
pub mod enter;
mod error;
mod fabric;
mod files;
mod host;
mod link;
mod netns;
pub mod pod;
pub mod process;
mod publish;
pub mod sandbox;
mod state;
pub mod testing;

pub use capture::{Capture, Captured};
pub use enter::{Mode, enter, is_rootless};
pub use error::Error;
pub use pod::{Addresses, Pod, PodSpec};
pub use process::{Process, User};
pub use publish::Published;
pub use sandbox::{Config, HostEntry, Sandbox};
