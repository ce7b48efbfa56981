//! What shall be redirected, as `init` and `validate` are told.

use weft_cni::injection;
use weft_cni::redirect::{self, Cidr, Redirect};

/// The redirection: as a whole in JSON, or by single options.
#[derive(Debug, clap::Args)]
pub(crate) struct RedirectOptions {
    /// The whole redirection in JSON, as the injector writes it into the annotation weft.mesh/redirect
    #[arg(long, value_name = "JSON", conflicts_with = "single")]
    redirect: Option<String>,
    #[command(flatten)]
    single: SingleOptions,
}

#[derive(Debug, clap::Args)]
#[group(id = "single", multiple = true)]
struct SingleOptions {
    /// The user the sidecar runs as: its connections are not redirected
    #[arg(long, value_name = "UID", default_value_t = injection::PROXY_UID)]
    proxy_uid: u32,
    /// The mark of the sidecar's connections, where it sets one (SO_MARK)
    #[arg(long, value_name = "NUMBER")]
    proxy_mark: Option<u32>,
    /// The sidecar's port for outbound connections
    #[arg(long, value_name = "PORT", default_value_t = redirect::OUTBOUND_PORT)]
    outbound_port: u16,
    /// The sidecar's port for inbound connections
    #[arg(long, value_name = "PORT", default_value_t = redirect::INBOUND_PORT)]
    inbound_port: u16,
    /// Ports that others connect to past the sidecar, besides its own port 15020
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    skip_inbound_ports: Vec<u16>,
    /// Only these ports are redirected when others connect
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    only_inbound_ports: Option<Vec<u16>>,
    /// Destination ports that the application connects to past the sidecar
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    skip_outbound_ports: Vec<u16>,
    /// Networks that the application connects to past the sidecar
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    skip_outbound_cidrs: Vec<Cidr>,
    /// Only connections to these networks are redirected
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    only_outbound_cidrs: Option<Vec<Cidr>>,
    /// Leave IPv4 alone
    #[arg(long)]
    no_ipv4: bool,
    /// Leave IPv6 alone
    #[arg(long)]
    no_ipv6: bool,
}

impl RedirectOptions {
    /// The redirection they describe.
    pub(crate) fn redirect(self) -> anyhow::Result<Redirect> {
        if let Some(text) = self.redirect {
            return Ok(injection::read(&text)?);
        }
        let single = self.single;
        let mut redirect = Redirect {
            outbound_port: single.outbound_port,
            inbound_port: single.inbound_port,
            exclude_mark: single.proxy_mark,
            exclude_uid: Some(single.proxy_uid),
            include_inbound_ports: single.only_inbound_ports,
            exclude_outbound_ports: single.skip_outbound_ports,
            exclude_outbound_cidrs: single.skip_outbound_cidrs,
            include_outbound_cidrs: single.only_outbound_cidrs,
            ipv4: !single.no_ipv4,
            ipv6: !single.no_ipv6,
            ..Redirect::default()
        };
        redirect.exclude_inbound_ports.extend(single.skip_inbound_ports);
        redirect::check(&redirect)?;
        Ok(redirect)
    }
}
