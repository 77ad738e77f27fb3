//! Lists of completion indexes as texts: `0,3-5`. Strict, unlike the reading of one's own status.

/// Reads the intervals of a list, each with its first and last index.
///
/// # Errors
///
/// What is wrong with the list.
pub(super) fn parse(text: &str, completions: i32) -> Result<Vec<(i32, i32)>, String> {
    let mut intervals: Vec<(i32, i32)> = Vec::new();
    if text.is_empty() {
        return Ok(intervals);
    }
    for part in text.split(',') {
        let number = |digits: &str| {
            let is_plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let value = is_plain.then(|| digits.parse::<i32>().ok()).flatten();
            value.ok_or_else(|| format!("cannot convert string to integer for index: {digits:?}"))
        };
        let (first, last) = match part.split_once('-') {
            None => {
                let index = number(part)?;
                (index, index)
            }
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first >= last {
                    return Err(format!(
                        "non-increasing order, previous: {first}, current: {last}"
                    ));
                }
                (first, last)
            }
        };
        if let Some((_, previous)) = intervals.last()
            && *previous >= first
        {
            return Err(format!(
                "non-increasing order, previous: {previous}, current: {first}"
            ));
        }
        if last >= completions {
            return Err(format!("too large index: {part:?}"));
        }
        intervals.push((first, last));
    }
    Ok(intervals)
}

/// The intervals of a list as far as they can be read: what is wrong with the others is not the matter.
pub(super) fn readable(text: &str) -> Vec<(i32, i32)> {
    let parts = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    parts.collect()
}

/// How many indexes there are in `intervals`.
pub(super) fn count(intervals: &[(i32, i32)]) -> i32 {
    intervals.iter().map(|(first, last)| last - first + 1).sum()
}

/// Whether an index stands in both.
pub(super) fn overlap(one: &[(i32, i32)], other: &[(i32, i32)]) -> bool {
    let meets = |(first, last): &(i32, i32)| {
        other
            .iter()
            .any(|(other_first, other_last)| first <= other_last && other_first <= last)
    };
    one.iter().any(meets)
}
