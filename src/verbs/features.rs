// SPDX-License-Identifier: Apache-2.0
//! features: what engines read about the runtime, plus what the shim provides.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Call, pass};
use crate::decision::{self, Action};
use crate::json::{self, Found, Splice};
use crate::runtime::helper::{self, Answer};
use crate::timens::{self, Kernel};

pub(super) fn features(call: &Call<'_>) -> Result<u8> {
    let decision = decision::features(Kernel::try_out(), call.abilities, timens::may_make());
    if call.take(decision)? != Action::ListTime {
        return pass(&call.binary, call.invocation);
    }
    let arguments = call.invocation.args.iter().skip(1).map(|argument| OsStr::from_bytes(argument.to_bytes()));
    let mut command = Command::new(&call.binary.path);
    let Answer { status, output } = match helper::run(command.arg0(&call.binary.path).args(arguments)) {
        Ok(answer) => answer,
        Err(error) => {
            log::warn!("features is the runtime's own: {error:#}");
            return pass(&call.binary, call.invocation);
        }
    };
    let pieces = std::str::from_utf8(&output).ok().and_then(list_time);
    let mut stdout = io::stdout();
    let written = match &pieces {
        Some(splice) => splice.pieces(&output).iter().try_for_each(|piece| stdout.write_all(piece)),
        None => stdout.write_all(&output),
    };
    written.and_then(|()| stdout.flush()).context("write to standard output")?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(code).unwrap_or(1))
}

/// The change that makes the text of `features` list time; none where there is no such list, or time in it.
fn list_time(text: &str) -> Option<Splice> {
    let [Found::One(linux)] = json::members(text, ["linux"]).ok()? else { return None };
    let [Found::One(array)] = json::members(linux, ["namespaces"]).ok()? else { return None };
    let elements = json::elements(array).ok()?;
    let listed = elements.iter().any(|element| json::string(element).as_deref() == Some("time"));
    (!listed).then(|| Splice::append(text, array, &elements, "\"time\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_listed_once_and_nothing_else_changes() {
        let text = "{\n \"linux\": {\n  \"namespaces\": [\n   \"cgroup\",\n   \"user\"\n  ]\n }\n}\n";
        let listed = String::from_utf8(list_time(text).unwrap().pieces(text.as_bytes()).concat()).unwrap();
        assert_eq!(listed, text.replace("\"user\"", "\"user\",\"time\""));
        assert_eq!(list_time(&listed), None);
        assert_eq!(list_time("No such command"), None);
        assert_eq!(list_time(r#"{"linux":{}}"#), None);
    }
}
