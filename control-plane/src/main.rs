//! `weft-control-plane`: flags in, a [`ControlPlane`] out.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use weft_api::Duration;
use weft_control_plane::identity::JoinKey;
use weft_control_plane::identity::authority::{Authority, Settings};
use weft_control_plane::identity::token::Claim;
use weft_control_plane::model::{Cidr, MeshConfig};
use weft_control_plane::{
    Config, ControlPlane, Installation, OWN_TOKEN, REQUEST_HEADER, Rotation, SourceConfig, TokenRequest, WebhookConfig,
};

/// Weft's control plane: reads what you wrote, tells the proxies, and signs their certificates.
#[derive(Parser)]
#[command(name = "weft-control-plane", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve proxies until SIGTERM or SIGINT.
    Serve(Box<Serve>),
    /// Print a join token for one pod outside Kubernetes. Whoever holds it can become that pod.
    Token(Token),
    /// Start to replace the root certificate of a running control plane; nothing restarts.
    RotateRoot(RotateRoot),
    /// Print the trusted root certificates as PEM, for `trusted_ca` in a proxy's bootstrap.
    Ca(Ca),
}

#[derive(Args)]
struct Serve {
    /// Folder of Kubernetes and Weft YAML files; edits apply at once.
    #[arg(long, required_unless_present = "kubernetes")]
    folder: Option<PathBuf>,
    /// Watch the Kubernetes API server of $KUBECONFIG, or of the cluster in which this runs, instead of a folder.
    #[arg(long, conflicts_with = "folder")]
    kubernetes: bool,
    /// How to reach the API server, instead of $KUBECONFIG.
    #[arg(long, requires = "kubernetes")]
    kubeconfig: Option<PathBuf>,
    /// Namespace in which this control plane runs: that of its Secret, its Lease and its webhook's Service; by default that of the
    /// service account that it has, or weft-system.
    #[arg(long, env = "WEFT_NAMESPACE")]
    namespace: Option<String>,
    /// Name of this replica in the election; by default the host's name, which is the pod's.
    #[arg(long, env = "WEFT_POD")]
    replica: Option<String>,
    /// Folder for the authority's keys; made if it does not exist. Not used with --kubernetes.
    #[arg(long, required_unless_present = "kubernetes")]
    state: Option<PathBuf>,
    /// Address for proxies (ADS and certificate signing).
    #[arg(long, default_value = "127.0.0.1:15012")]
    listen: SocketAddr,
    /// Loopback address for /metrics, /ready, /live and /status.
    #[arg(long, default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
    /// Address on which /metrics, /ready and /live (and nothing else) are served to other machines.
    #[arg(long)]
    health: Option<SocketAddr>,
    /// Address of the webhook that injects sidecars into pods, and checks routes and policies, for the Kubernetes API server.
    #[arg(long)]
    webhook: Option<SocketAddr>,
    /// File of what the installation says about sidecars, in YAML; edits apply at once.
    #[arg(long, requires = "webhook")]
    injection: Option<PathBuf>,
    /// Trust domain of all identities.
    #[arg(long, default_value = weft_xds::names::DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
    /// How long certificates are valid. Proxies renew at half of it.
    #[arg(long, default_value = "24h")]
    certificate_lifetime: Duration,
    /// How long a new root is trusted before it signs.
    #[arg(long, default_value = "24h")]
    root_overlap: Duration,
    /// Range from which Services without an address get one; repeatable. Replaces the default ranges.
    #[arg(long)]
    service_range: Vec<Cidr>,
    /// Range that belongs to the mesh: connections to it fail while unknown; repeatable. Replaces the default ranges.
    #[arg(long)]
    mesh_range: Vec<Cidr>,
    /// Serve without TLS; only with a loopback `--listen`.
    #[arg(long)]
    insecure_loopback: bool,
}

#[derive(Args)]
struct Token {
    /// The control plane's state folder.
    #[arg(long, required_unless_present = "admin")]
    state: Option<PathBuf>,
    /// The admin address of a running control plane, which makes the token itself; on Kubernetes there is no other way.
    #[arg(long, conflicts_with = "state")]
    admin: Option<SocketAddr>,
    /// The pod's namespace.
    #[arg(long)]
    namespace: String,
    /// The pod's name.
    #[arg(long)]
    pod: String,
    /// How long the token is valid.
    #[arg(long, default_value = "24h")]
    lifetime: Duration,
}

#[derive(Args)]
struct RotateRoot {
    /// The running control plane's admin address.
    #[arg(long, default_value = "127.0.0.1:15014")]
    admin: SocketAddr,
}

#[derive(Args)]
struct Ca {
    /// The control plane's state folder; the authority is made there if there is none yet.
    #[arg(long)]
    state: PathBuf,
    /// Trust domain, for an authority that is made.
    #[arg(long, default_value = weft_xds::names::DEFAULT_TRUST_DOMAIN)]
    trust_domain: String,
}

fn main() -> ExitCode {
    // Dropped pipes (`… | head`) end the program with an error from println!, not with a signal; both are fine.
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-control-plane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(serve) => {
            tracing_subscriber::fmt()
                .with_writer(std::io::stderr)
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_env_filter(
                    // What that library says at each failure is said by whoever waits for the answer, with what follows from it.
                    tracing_subscriber::EnvFilter::try_from_env("WEFT_LOG")
                        .unwrap_or_else(|_| "info,kube_client=off".into()),
                )
                .init();
            tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()
                .context("starting the runtime")?
                .block_on(self::serve(*serve))
        }
        Command::Token(token) => {
            let Token { state, admin, namespace, pod, lifetime } = token;
            weft_xds::names::PodName::new(&*pod, "workload", &*namespace)?;
            if let Some(admin) = admin {
                let request = TokenRequest { namespace, pod, lifetime: lifetime.0.as_secs() };
                let own = std::fs::read_to_string(OWN_TOKEN).with_context(|| {
                    format!("reading {OWN_TOKEN}: is this the control plane's own container (kubectl exec)?")
                })?;
                let answer = wait_for(post(admin, "/join-token", serde_json::to_string(&request)?, Some(own.trim())))?;
                println!("{}", answer.trim());
                return Ok(());
            }
            let key = JoinKey::open(&state.context("name the control plane's --state or --admin")?)?;
            println!("{}", key.issue(&Claim { namespace, pod }, lifetime.0, SystemTime::now())?);
            Ok(())
        }
        Command::Ca(ca) => {
            // Nothing is signed or rotated here.
            let settings = Settings {
                trust_domain: ca.trust_domain,
                certificate_lifetime: std::time::Duration::ZERO,
                root_overlap: std::time::Duration::ZERO,
            };
            let authority = Authority::open(&ca.state, settings, SystemTime::now())?;
            print!("{}", authority.trust().borrow().pem());
            Ok(())
        }
        Command::RotateRoot(rotate) => {
            let answer = wait_for(post(rotate.admin, "/rotate-root", String::new(), None))?;
            let rotation: Rotation = serde_json::from_str(&answer).context("reading the answer")?;
            println!("{}", serde_json::to_string_pretty(&rotation)?);
            Ok(())
        }
    }
}

fn wait_for<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?.block_on(work)
}

async fn serve(args: Serve) -> anyhow::Result<()> {
    // Each proxy is an open file; what starts programs often gives them 1,024, and leaves it to them to ask for more.
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!("cannot raise the limit of open files (RLIMIT_NOFILE): {error}");
    }
    let mut mesh = MeshConfig { trust_domain: args.trust_domain, ..MeshConfig::default() };
    if !args.service_range.is_empty() {
        mesh.virtual_ranges = args.service_range;
    }
    if !args.mesh_range.is_empty() {
        mesh.ranges = args.mesh_range;
    }
    let installation = Installation::find(args.namespace, args.replica, args.kubeconfig);
    let (settings, namespace) = (args.injection, installation.namespace.clone());
    let config = Config {
        listen: args.listen,
        admin: args.admin,
        webhook: args.webhook.map(|listen| WebhookConfig { listen, settings, namespace }),
        mesh,
        certificate_lifetime: args.certificate_lifetime.0,
        root_overlap: args.root_overlap.0,
        insecure_loopback: args.insecure_loopback,
        health: args.health,
        source: match args.folder {
            Some(folder) => SourceConfig::Folder(folder),
            None => SourceConfig::Kubernetes(installation),
        },
        ..Config::new(PathBuf::new(), args.state.unwrap_or_default())
    };
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let control_plane = ControlPlane::start(config).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    control_plane.stop().await;
    Ok(())
}

/// Asks a running control plane for what changes something, or gives something away to who has the token `own`.
async fn post(admin: SocketAddr, path: &str, body: String, own: Option<&str>) -> anyhow::Result<String> {
    let unreachable =
        || format!("asking {admin}: is the control plane running, and is this the address of its --admin?");
    let stream = tokio::net::TcpStream::connect(admin).await.with_context(unreachable)?;
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.with_context(unreachable)?;
    tokio::spawn(connection);
    let mut request = http::Request::post(path)
        .header(http::header::HOST, (Ipv4Addr::LOCALHOST).to_string())
        .header(http::header::CONTENT_TYPE, "application/json")
        .header(REQUEST_HEADER, "weft-control-plane");
    if let Some(own) = own {
        request = request.header(http::header::AUTHORIZATION, format!("Bearer {own}"));
    }
    let body = http_body_util::Full::new(bytes::Bytes::from(body));
    let request = request.body(body).context("building the request")?;
    let response = sender.send_request(request).await.with_context(unreachable)?;
    let status = response.status();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.with_context(unreachable)?.to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    if !status.is_success() {
        bail!("{}", body.trim());
    }
    Ok(body)
}
