//! Kubernetes quantities, as far as the bounds of containers and `resourceFieldRef` need them.

use k8s_openapi::api::core::v1::Container;

/// The value of `limits.cpu` and its like in units of the divisor, rounded up. Without a limit it is what the node has, without
/// a request it is nothing.
pub(super) fn field(
    container: &Container,
    resource: &str,
    divisor: Option<&str>,
) -> Result<String, String> {
    let unsupported = || format!("unsupported resource: {resource}");
    let (list, name) = resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let given = match list {
        "limits" => resources.and_then(|all| all.limits.as_ref()),
        "requests" => resources.and_then(|all| all.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let given = given
        .and_then(|list| list.get(name))
        .map(|quantity| nanos(&quantity.0));
    let amount = match (given, list, name) {
        (Some(given), ..) => given?,
        (None, "limits", "cpu") => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            i128::try_from(cores).unwrap_or(1) * NANO
        }
        (None, "limits", "memory") => memory_bytes().unwrap_or(0) * NANO,
        (None, _, "cpu" | "memory" | "ephemeral-storage") => 0,
        _ => return Err(unsupported()),
    };
    let divisor = match divisor.map(nanos).transpose()? {
        None | Some(0) => NANO,
        Some(divisor) => divisor,
    };
    Ok(((amount + divisor - 1) / divisor).to_string())
}

const NANO: i128 = 1_000_000_000;

/// How many bytes of memory the container may have; nothing where it has no bound, and 0 is none.
pub(super) fn memory_max(container: &Container) -> Option<u64> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    let bytes = nanos(&limits.get("memory")?.0).ok()? / NANO;
    u64::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

fn memory_bytes() -> Option<i128> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: i128 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// A quantity in billionths of its unit; one below zero is none here.
///
/// # Errors
///
/// When the text is no quantity.
pub(crate) fn nanos(text: &str) -> Result<i128, String> {
    let wrong = || format!("invalid quantity: {text:?}");
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit = match suffix {
        "n" => 1,
        "u" => 1_000,
        "m" => 1_000_000,
        "" => NANO,
        "k" => NANO * 1_000,
        "M" => NANO * 1_000_000,
        "G" => NANO * 1_000_000_000,
        "T" => NANO * 1_000_000_000_000,
        "P" => NANO * 1_000_000_000_000_000,
        "E" => NANO * 1_000_000_000_000_000_000,
        "Ki" => NANO << 10,
        "Mi" => NANO << 20,
        "Gi" => NANO << 30,
        "Ti" => NANO << 40,
        "Pi" => NANO << 50,
        "Ei" => NANO << 60,
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or_else(wrong)?;
            let exponent: u32 = exponent.parse().map_err(|_| wrong())?;
            let factor = 10_i128.checked_pow(exponent.min(18)).ok_or_else(wrong)?;
            NANO * factor
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 {
        return Err(wrong());
    }
    let digits = |text: &str| {
        if text.is_empty() {
            Ok(0)
        } else {
            text.parse::<i128>()
        }
    };
    let fraction = fraction.get(..fraction.len().min(9)).unwrap_or_default();
    let scale = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let whole = digits(whole)
        .map_err(|_| wrong())?
        .checked_mul(unit)
        .ok_or_else(wrong)?;
    let part = digits(fraction)
        .map_err(|_| wrong())?
        .checked_mul(unit)
        .ok_or_else(wrong)?
        / scale;
    whole
        .checked_add(part)
        .filter(|sum| *sum < i128::MAX / 2)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, value) in [
            ("1", NANO),
            ("100m", NANO / 10),
            ("1.5", NANO * 3 / 2),
            ("1.5Gi", (NANO << 30) * 3 / 2),
            ("2e3", NANO * 2_000),
            (".5", NANO / 2),
            ("0", 0),
        ] {
            assert_eq!(nanos(text), Ok(value), "{text}");
        }
        for text in [
            "",
            "Mi",
            "1Q",
            "1.2.3",
            "-1",
            "1e",
            "9999999999999999999999999999E",
        ] {
            assert!(nanos(text).is_err(), "{text}");
        }
    }
}
