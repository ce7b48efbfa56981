//! Traffic redirection into the sidecar: what the program `weft-cni` and the node's agent, `weft-cni-node`, are made of.
//!
//! | module | job |
//! |---|---|
//! | [`redirect`] | the rules, in the calling thread's network namespace |
//! | [`injection`] | what the injector writes on a pod, and what it means |
//! | [`netns`] | working in another network namespace |
//! | [`agent`] | the plugin's question to the node's agent |
//! | [`PluginSettings`] | what the node's agent tells the plugin |
//!
//! The program itself: `plugin` is the CNI plugin, `init` the init container where there is no plugin, `validate` the proof inside a pod.

pub mod agent;
pub mod injection;
pub mod netns;
pub mod redirect;
mod settings;

pub use settings::PluginSettings;

/// The plugin's name: of its program on the node, and of its `type` in a network's configuration.
pub const PLUGIN: &str = "weft-cni";
/// The versions of the CNI specification the plugin speaks. 0.3 is 0.4 without CHECK, and still what many configurations say.
pub const CNI_VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
