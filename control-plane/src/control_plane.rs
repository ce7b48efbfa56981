//! A whole control plane in one process: started, running, stopped.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admin::{self, Admin};
use crate::configuration::Configuration;
use crate::identity::authority::{Settings, Trust};
use crate::identity::{
    Authenticator, Authority, AuthorityError, AuthoritySecret, IdentityService, JoinKey, Reviewer, Serving,
    ServingError, StoreError, Tokens,
};
use crate::kubernetes::{self, ConnectError, Elected, Installation};
use crate::metrics::Metrics;
use crate::model::{MeshConfig, Model};
use crate::server::{self, Services};
use crate::sources::{FolderError, Source, SourceState, watch_folder, watch_kubernetes};
use crate::webhook::{self, SettingsError, WebhookConfig};
use crate::xds::{AdsService, Cache, Registry, Shared};

/// Where the mesh's description comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceConfig {
    /// A folder of YAML files.
    Folder(PathBuf),
    /// The API server that $KUBECONFIG names, or the one of the cluster in which this process runs; and where in it the
    /// control plane keeps what is its own.
    Kubernetes(Installation),
}

impl fmt::Display for SourceConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Kubernetes(_) => f.write_str("kubernetes"),
        }
    }
}

/// Everything there is to decide about a control plane.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the mesh's description comes from.
    pub source: SourceConfig,
    /// The folder for the authority's keys, made if it does not exist. On Kubernetes they are in a Secret, and this is not used.
    pub state: PathBuf,
    /// Where proxies connect. Port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where operators ask; loopback only. Port 0 picks a free one.
    pub admin: SocketAddr,
    /// Where probes and scrapes are answered, on any address; `None` for nowhere but at `admin`.
    pub health: Option<SocketAddr>,
    /// The webhook; `None` for none.
    pub webhook: Option<WebhookConfig>,
    /// Trust domain and address ranges.
    pub mesh: MeshConfig,
    /// How long certificates are valid.
    pub certificate_lifetime: Duration,
    /// How long a new root is trusted before it signs.
    pub root_overlap: Duration,
    /// Serve without TLS; loopback only.
    pub insecure_loopback: bool,
}

impl Config {
    /// The defaults, for a folder of YAML and a state folder.
    #[must_use]
    pub fn new(folder: PathBuf, state: PathBuf) -> Self {
        Self {
            source: SourceConfig::Folder(folder),
            state,
            listen: SocketAddr::from(([127, 0, 0, 1], 15012)),
            admin: SocketAddr::from(([127, 0, 0, 1], 15014)),
            health: None,
            webhook: None,
            mesh: MeshConfig::default(),
            certificate_lifetime: Duration::from_secs(24 * 3600),
            root_overlap: Duration::from_secs(24 * 3600),
            insecure_loopback: false,
        }
    }
}

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The Kubernetes API server.
    #[error(
        "no Kubernetes API server is known: {0}; give --kubeconfig or set KUBECONFIG, or run in a cluster with a service account's token"
    )]
    Kubernetes(#[from] Box<ConnectError>),
    /// The certificate authority.
    #[error("certificate authority: {0}")]
    Authority(#[from] AuthorityError),
    /// The state folder.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS.
    #[error(transparent)]
    Serving(#[from] ServingError),
    /// What the installation says about sidecars.
    #[error(transparent)]
    Injection(#[from] SettingsError),
    /// An address could not be listened on.
    #[error(
        "cannot listen on {address}: {source}; is another control plane running, and is the address one of this machine?"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// Something that must stay on this machine was to be reachable from others.
    #[error("{what} must listen on a loopback address, not on {address}")]
    NotLoopback {
        /// `--admin` or `--insecure-loopback`.
        what: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A duration that makes no sense.
    #[error("{what} must be at least {least:?}, not {found:?}")]
    TooShort {
        /// The setting.
        what: &'static str,
        /// The least.
        least: Duration,
        /// What was asked for.
        found: Duration,
    },
}

/// The shortest certificate lifetime: below, proxies would do little else than renew.
const LEAST_LIFETIME: Duration = Duration::from_secs(2);

/// A running control plane. [`ControlPlane::stop`] ends it; so does dropping it, without waiting.
pub struct ControlPlane {
    /// Where proxies connect.
    pub xds_addr: SocketAddr,
    /// Where operators ask.
    pub admin_addr: SocketAddr,
    /// Where the API server asks about pods; `None` without a webhook.
    pub webhook_addr: Option<SocketAddr>,
    authority: Arc<Authority>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl ControlPlane {
    /// Reads the folder once, or begins to watch the API server; loads or makes the authority, and serves.
    ///
    /// A folder with errors does not stop it: it then serves status, and resources as soon as the folder is mended.
    ///
    /// # Errors
    /// If the folders or the API server cannot be used, or the addresses not be listened on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        check(&config)?;
        let settings = Settings {
            trust_domain: config.mesh.trust_domain.clone(),
            certificate_lifetime: config.certificate_lifetime,
            root_overlap: config.root_overlap,
        };
        let mesh = Arc::new(config.mesh.clone());
        let metrics = Arc::new(Metrics::new());
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let (authority, tokens, source, client) = match &config.source {
            SourceConfig::Folder(folder) => {
                let authority = Arc::new(Authority::open(&config.state, settings, SystemTime::now())?);
                (authority, Tokens::Join(JoinKey::open(&config.state)?), watch_folder(folder, mesh).await?, None)
            }
            SourceConfig::Kubernetes(installation) => {
                let client = installation.connect().await.map_err(Box::new)?;
                let secret = AuthoritySecret::new(client.clone(), &installation.namespace);
                let authority = Arc::new(Authority::in_secret(secret, settings, SystemTime::now()).await?);
                let (source, reports) = watch_kubernetes(&client, mesh);
                let elected = Elected { trust: authority.trust(), reports, metrics: metrics.clone() };
                tasks.spawn(kubernetes::run(client.clone(), installation.clone(), elected, stop.clone()));
                let reviewer = Reviewer::new(client.clone(), metrics.clone());
                let tokens = Tokens::ServiceAccount(Box::new(reviewer), authority.clone());
                (authority, tokens, source, Some(client))
            }
        };
        let authenticator = Arc::new(Authenticator::new(config.mesh.trust_domain.clone(), tokens));
        let registry = Arc::new(Registry::default());
        let in_force = watch::Sender::new(source.state.borrow().clone());
        let cache = Arc::new(Cache::new(compose(&source.models.borrow(), &authority.trust().borrow())));

        let xds = listen(config.listen).await?;
        let admin = listen(config.admin).await?;
        let (xds_addr, admin_addr) = (local(&xds, config.listen)?, local(&admin, config.admin)?);
        let serving = if config.insecure_loopback {
            None
        } else {
            Some(Arc::new(Serving::new(authority.clone(), xds_addr.ip())?))
        };
        {
            let (authority, stop) = (authority.clone(), stop.clone());
            tasks.spawn(async move { authority.maintain(stop).await });
        }
        if let Some(serving) = serving.clone() {
            let stop = stop.clone();
            tasks.spawn(async move { serving.maintain(stop).await });
        }
        let services = Services {
            ads: AdsService {
                shared: Shared {
                    cache: cache.clone(),
                    registry: registry.clone(),
                    metrics: metrics.clone(),
                    source: in_force.subscribe(),
                    stop: stop.clone(),
                },
                authenticator: authenticator.clone(),
            },
            identity: IdentityService {
                authority: authority.clone(),
                authenticator: authenticator.clone(),
                cache: cache.clone(),
                metrics: metrics.clone(),
            },
        };
        tasks.spawn(server::serve(xds, serving, services, stop.clone()));
        let state = Admin {
            folder: config.source.to_string(),
            source: in_force.subscribe(),
            cache: cache.clone(),
            registry,
            metrics: metrics.clone(),
            authority: authority.clone(),
            authenticator,
        };
        if let Some(address) = config.health {
            tasks.spawn(admin::serve_health(listen(address).await?, state.clone(), stop.clone()));
        }
        tasks.spawn(admin::serve(admin, state, stop.clone()));
        let webhook_addr = match config.webhook {
            None => None,
            Some(webhook) => {
                let listener = listen(webhook.listen).await?;
                let address = local(&listener, webhook.listen)?;
                webhook::start(&webhook, listener, authority.clone(), client, &tasks, &stop)?;
                Some(address)
            }
        };
        tasks.spawn(follow(source, in_force, authority.trust(), cache, metrics, stop.clone()));
        tasks.close();
        tracing::info!(xds = %xds_addr, admin = %admin_addr, webhook = ?webhook_addr, "serving");
        Ok(Self { xds_addr, admin_addr, webhook_addr, authority, stop, tasks })
    }

    /// The trusted roots, as PEM.
    #[must_use]
    pub fn bundle_pem(&self) -> String {
        self.authority.trust().borrow().pem()
    }

    /// The certificate authority.
    #[must_use]
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// Tells every client to reconnect elsewhere, waits for connections to end (a few seconds at most), and returns.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Takes every new model, and every change of the trusted roots, to the cache, and says so in `in_force` after it.
async fn follow(
    mut source: Source,
    in_force: watch::Sender<Arc<SourceState>>,
    mut trust: watch::Receiver<Arc<Trust>>,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    report(&in_force.borrow(), &metrics);
    loop {
        let mut render = false;
        tokio::select! {
            () = stop.cancelled() => return,
            // A model is published before the state that tells of it.
            changed = source.state.changed() => {
                if changed.is_err() {
                    // The watcher has ended, which it does only with the process.
                    return;
                }
            }
            // The sender lives in the authority, which outlives this task.
            _ = trust.changed() => render = true,
        }
        // Read before the model, so that it tells of nothing newer than what is rendered here.
        let state = source.state.borrow_and_update().clone();
        if source.models.has_changed().unwrap_or(false) {
            metrics.changed();
            render = true;
        }
        if render {
            let since = tokio::time::Instant::now();
            let configuration = compose(&source.models.borrow_and_update(), &trust.borrow_and_update());
            let cache = cache.clone();
            // Rendering takes milliseconds of CPU: not on the threads that serve.
            match tokio::task::spawn_blocking(move || cache.update(configuration, since)).await {
                Ok(changed) => tracing::debug!(changed, "resources rendered"),
                Err(error) => tracing::error!("rendering failed, the old resources stay: {error}"),
            }
        }
        report(&state, &metrics);
        in_force.send_replace(state);
    }
}

fn report(state: &SourceState, metrics: &Metrics) {
    let errors = state.problems.iter().filter(|problem| problem.is_error());
    metrics.source_errors(errors.count());
    metrics.watches(&state.watches);
}

fn compose(model: &Arc<Model>, trust: &Arc<Trust>) -> Configuration {
    Configuration { model: model.clone(), trust: trust.clone() }
}

fn check(config: &Config) -> Result<(), StartError> {
    if !config.admin.ip().is_loopback() {
        return Err(StartError::NotLoopback { what: "--admin", address: config.admin });
    }
    if config.insecure_loopback && !config.listen.ip().is_loopback() {
        return Err(StartError::NotLoopback { what: "--listen with --insecure-loopback", address: config.listen });
    }
    if config.certificate_lifetime < LEAST_LIFETIME {
        return Err(StartError::TooShort {
            what: "--certificate-lifetime",
            least: LEAST_LIFETIME,
            found: config.certificate_lifetime,
        });
    }
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|source| StartError::Listen { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|source| StartError::Listen { address, source })
}
