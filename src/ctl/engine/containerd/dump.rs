// SPDX-License-Identifier: Apache-2.0
//! What `containerd config dump` prints: the runtimes in it, in the configurations of all versions.

use toml::{Table, Value};

use super::super::{NAME, Runtime, Wish};

/// The plugin that has the runtimes, by the version of the configuration.
pub(super) fn plugin(version: i64) -> &'static str {
    if version >= 3 { "io.containerd.cri.v1.runtime" } else { "io.containerd.grpc.v1.cri" }
}

/// Of a dump: the part that is about runtimes, and these.
pub(super) fn runtimes(dump: &Table) -> Option<(&Table, &Table)> {
    let plugins = dump.get("plugins")?.as_table()?;
    let parts =
        [3, 2].map(|version| plugins.get(plugin(version)).and_then(|plugin| plugin.get("containerd")?.as_table()));
    let containerd = parts.into_iter().flatten().next()?;
    Some((containerd, containerd.get("runtimes")?.as_table()?))
}

/// The program that a dump has for our handler.
pub(super) fn handler(dump: &Table) -> Option<String> {
    let ours = runtimes(dump)?.1.get(NAME)?;
    let program =
        ours.get("options").and_then(|options| options.get("BinaryName")?.as_str()).unwrap_or("no BinaryName");
    Some(crate::text::printable(program, 1024))
}

/// The name of what pods get that ask for no runtime.
pub(super) fn default_runtime(dump: &Table) -> Option<&str> {
    runtimes(dump)?.0.get("default_runtime_name")?.as_str()
}

/// A runtime of a dump, if it is one by runc or by what is in runc's place.
pub(super) fn runtime(name: &str, table: &Value) -> Option<Runtime> {
    if !table.get("runtime_type")?.as_str()?.starts_with("io.containerd.runc.") {
        return None;
    }
    let program = table.get("options").and_then(|options| options.get("BinaryName")?.as_str());
    Some(Runtime::new(name, program.filter(|program| !program.is_empty()).unwrap_or("runc")))
}

/// Whether the part is switched off that has runtimes, as Docker's packages do it. containerd 1 leaves it out then.
pub(super) fn is_without_cri(dump: &Table) -> bool {
    let disabled = dump.get("disabled_plugins").and_then(Value::as_array);
    let is_cri = |name: &Value| name.as_str().is_some_and(|name| name == "cri" || [2, 3].map(plugin).contains(&name));
    runtimes(dump).is_none() || disabled.is_some_and(|disabled| disabled.iter().any(is_cri))
}

/// A dump has the handler as wished, and is in all else what it was without.
pub(super) fn differs_only_by_us(mut bare: Table, mut dump: Table, wish: &Wish) -> bool {
    if handler(&dump).as_ref() != Some(&wish.shim.path()) || wish.default && default_runtime(&dump) != Some(NAME) {
        return false;
    }
    for dump in [&mut bare, &mut dump] {
        // Which files there are is none of what they say.
        dump.remove("imports");
        for version in [2, 3] {
            let plugin = dump.get_mut("plugins").and_then(|plugins| plugins.get_mut(plugin(version)));
            let Some(containerd) = plugin.and_then(|plugin| plugin.get_mut("containerd")?.as_table_mut()) else {
                continue;
            };
            if let Some(runtimes) = containerd.get_mut("runtimes").and_then(Value::as_table_mut) {
                runtimes.remove(NAME);
            }
            if wish.default {
                containerd.remove("default_runtime_name");
            }
        }
    }
    bare == dump
}

/// A runtime of a dump as a section of a configuration.
pub(super) fn section(dump: &Table, version: i64, name: &str) -> Option<String> {
    let runtime = runtimes(dump)?.1.get(name)?.as_table()?;
    let path = format!("plugins.\"{}\".containerd.runtimes.{name}", plugin(version));
    let lines = |table: &Table, indent: &str| {
        let values = table.iter().filter(|(_, value)| !value.is_table());
        // What JSON has for strings, numbers and lists of them, TOML has, too.
        let line =
            |(key, value): (&String, &Value)| Some(format!("{indent}{key} = {}\n", serde_json::to_string(value).ok()?));
        values.filter_map(line).collect::<String>()
    };
    let options = runtime.get("options").and_then(Value::as_table);
    let options = options.map(|options| format!("  [{path}.options]\n{}", lines(options, "    ")));
    Some(format!("[{path}]\n{}{}", lines(runtime, "  "), options.unwrap_or_default()))
}
