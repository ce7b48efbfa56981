//! What can go wrong, said so that the operator knows what to do next.

use std::io;

/// Why rules could not be installed, removed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A field of [`super::Redirect`] makes no sense.
    #[error("{field}: {value}: {reason}")]
    Invalid {
        /// The field, or the fields that contradict each other.
        field: &'static str,
        /// What it was.
        value: String,
        /// Why it cannot be, and what could.
        reason: &'static str,
    },
    /// The process may not change the network namespace's rules.
    #[error(
        "cannot {action}: the process lacks CAP_NET_ADMIN in its network namespace. Run it as root; in Kubernetes give the init container \
         the capability NET_ADMIN, or install the CNI plugin, with which pods need none"
    )]
    Permission {
        /// What was attempted.
        action: String,
    },
    /// The kernel has no nftables.
    #[error(
        "cannot {action}: the kernel has no nftables ({source}). Load it on the node with `modprobe nf_tables`, or use a kernel built with \
         CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
    )]
    NoNfTables {
        /// What was attempted.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel has nftables, but not what a rule is made of.
    #[error(
        "cannot {action}: the kernel lacks a part of nftables ({source}). Load the modules on the node with `modprobe -a nft_chain_nat \
         nft_redir nft_fib_inet`, or use a kernel built with CONFIG_NFT_NAT, CONFIG_NFT_REDIR and CONFIG_NFT_FIB_INET; NAT in the inet family needs Linux 5.2"
    )]
    NoExpression {
        /// What was attempted, with the rule.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused for another reason.
    #[error("cannot {action}: {source}")]
    Kernel {
        /// What was attempted, with the rule.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel's answer could not be understood.
    #[error(
        "cannot {action}: the kernel's answer is not what nftables answers: {reason}. This is a defect of weft or of the kernel: report it with `uname -r`"
    )]
    Answer {
        /// What was attempted.
        action: String,
        /// What was wrong with it.
        reason: String,
    },
}

impl Error {
    /// The error that says what to do about the kernel's `source` while doing `action`.
    pub(super) fn from_kernel(action: String, source: io::Error) -> Self {
        use nix::libc::{EACCES, EAFNOSUPPORT, ENOENT, EOPNOTSUPP, EPERM, EPROTONOSUPPORT};
        match source.raw_os_error() {
            Some(EPERM | EACCES) => Error::Permission { action },
            Some(EPROTONOSUPPORT | EAFNOSUPPORT) => Error::NoNfTables { action, source },
            // What nfnetlink answers for a subsystem it does not have, and nftables for a family.
            Some(EOPNOTSUPP) => Error::NoNfTables { action, source },
            // The table is made in the same transaction: what does not exist is an expression or a chain's type.
            Some(ENOENT) => Error::NoExpression { action, source },
            _ => Error::Kernel { action, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_of_the_kernel_names_the_way_out() {
        let say =
            |code| Error::from_kernel("install the redirection".into(), io::Error::from_raw_os_error(code)).to_string();
        assert!(say(nix::libc::EPERM).contains("CAP_NET_ADMIN"));
        assert!(say(nix::libc::EPROTONOSUPPORT).contains("modprobe nf_tables"));
        assert!(say(nix::libc::ENOENT).contains("nft_redir"));
        assert!(say(nix::libc::ENOMEM).contains("Cannot allocate memory"));
    }
}
