//! A profile as programs for the kernel (seccomp(2)): seccompiler writes them. Calls that a profile has an error of its own for
//! are answered in front, by number; so are those that are newer than any known here: ENOSYS, so that programs do without, as
//! under runc.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use super::super::spec::{Action, Argument, Comparison, Rule, Seccomp};
use super::table;

// Of linux/bpf_common.h and linux/seccomp.h.
const LOAD_WORD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Where a call's number lies in `struct seccomp_data`.
const NUMBER: u32 = 0;
const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
/// From here on numbers are those of x86-64's 32-bit variant, x32.
const X32: u32 = 0x4000_0000;

/// What is given to the kernel, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter(Vec<BpfProgram>);

/// Why a profile can't be enforced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It has an argument that no call has.
    #[error("the argument {0} of a system call: there are 6, the first of them 0")]
    Argument(u8),
    /// It can't be expressed.
    #[error("the profile can't be made: {0}")]
    Program(String),
}

fn program(why: impl ToString) -> Error {
    Error::Program(why.to_string())
}

/// Compiles a profile.
///
/// # Errors
/// [`Error`].
pub(crate) fn compile(profile: &Seccomp) -> Result<Filter, Error> {
    let default = action(profile.default_action, profile.default_errno_ret);
    let is_default = |rule: &&Rule| action(rule.action, rule.errno_ret) == default;
    let rules: Vec<&Rule> = profile.syscalls.iter().filter(|rule| !is_default(rule)).collect();
    // Whatever a rule names is let through here: rules with another action have programs of their own, and of all that the
    // programs say the kernel takes the strictest.
    let mut main = if default == SeccompAction::Allow {
        // No rule: what is left is that other processors' calls end the process.
        of_rules(&[], SeccompAction::KillProcess, default)?
    } else {
        of_rules(&rules, SeccompAction::Allow, default)?
    };
    let (mut front, mut programs) = (Vec::new(), Vec::new());
    for rule in rules.iter().filter(|rule| rule.action != Action::Allow) {
        let then = action(rule.action, rule.errno_ret);
        if rule.args.is_empty() {
            front.extend(numbers(rule).map(|number| (number, u32::from(then.clone()))));
        } else {
            programs.push(of_rules(&[rule], then, SeccompAction::Allow)?);
        }
    }
    // A profile that lets everything through but what it names means the calls that it doesn't know, too.
    if profile.default_action != Action::Allow && profile.default_action != Action::Log {
        main.splice(0..0, beyond(u32::try_from(table::end()).map_err(program)?));
    }
    for (number, then) in front {
        main.splice(0..0, [load(), jump(JUMP_IF_EQUAL, number, 0, 1), answer(then)]);
    }
    // Last, as it may forbid to install another.
    programs.push(main);
    Ok(Filter(programs))
}

fn load() -> sock_filter {
    sock_filter { code: LOAD_WORD, jt: 0, jf: 0, k: NUMBER }
}

/// Goes on by that many instructions more if the comparison holds, and if not.
fn jump(code: u16, value: u32, holds: u8, fails: u8) -> sock_filter {
    sock_filter { code, jt: holds, jf: fails, k: value }
}

fn answer(then: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: then }
}

/// Answers numbers that no known call has.
fn beyond(end: u32) -> [sock_filter; 4] {
    [
        load(),
        jump(JUMP_IF_AT_LEAST, X32, 2, 0),
        jump(JUMP_IF_AT_LEAST, end, 0, 1),
        answer(u32::from(SeccompAction::Errno(ENOSYS.into()))),
    ]
}

fn action(action: Action, errno: Option<u16>) -> SeccompAction {
    match action {
        Action::Allow => SeccompAction::Allow,
        Action::Errno => SeccompAction::Errno(errno.unwrap_or(EPERM).into()),
        Action::KillThread => SeccompAction::KillThread,
        Action::KillProcess => SeccompAction::KillProcess,
        Action::Trap => SeccompAction::Trap,
        Action::Log => SeccompAction::Log,
        Action::Trace => SeccompAction::Trace(errno.unwrap_or(EPERM).into()),
    }
}

/// Those of a rule's calls that this processor has.
fn numbers(rule: &Rule) -> impl Iterator<Item = u32> {
    rule.names.iter().filter_map(|name| u32::try_from(table::number(name)?).ok())
}

fn of_rules(rules: &[&Rule], then: SeccompAction, otherwise: SeccompAction) -> Result<BpfProgram, Error> {
    // By number: no rules of its own means whatever the arguments are.
    let mut all: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    let mut whole = Vec::new();
    for rule in rules {
        for number in numbers(rule) {
            let known = all.entry(number.into()).or_default();
            if rule.args.is_empty() {
                whole.push(i64::from(number));
            } else {
                let conditions = rule.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
                known.push(SeccompRule::new(conditions).map_err(program)?);
            }
        }
    }
    for number in whole {
        all.insert(number, Vec::new());
    }
    let architecture = if cfg!(target_arch = "aarch64") { TargetArch::aarch64 } else { TargetArch::x86_64 };
    let filter = SeccompFilter::new(all, otherwise, then, architecture).map_err(program)?;
    filter.try_into().map_err(program)
}

fn condition(argument: &Argument) -> Result<SeccompCondition, Error> {
    let Argument { index, value, value_two, op } = *argument;
    let (op, value) = match op {
        Comparison::Ne => (SeccompCmpOp::Ne, value),
        Comparison::Lt => (SeccompCmpOp::Lt, value),
        Comparison::Le => (SeccompCmpOp::Le, value),
        Comparison::Eq => (SeccompCmpOp::Eq, value),
        Comparison::Ge => (SeccompCmpOp::Ge, value),
        Comparison::Gt => (SeccompCmpOp::Gt, value),
        Comparison::MaskedEq => (SeccompCmpOp::MaskedEq(value), value_two),
    };
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, op, value).map_err(|_| Error::Argument(index))
}

impl Filter {
    /// Holds this process, and all that it executes, to it. Without the right to (`CAP_SYS_ADMIN`) only after
    /// `PR_SET_NO_NEW_PRIVS`.
    pub(crate) fn install(&self) -> io::Result<()> {
        // seccompiler's own `apply_filter` forbids new privileges, which a container may be allowed to gain.
        for program in &self.0 {
            let length = u16::try_from(program.len()).map_err(io::Error::other)?;
            let filter = program.as_ptr().cast::<libc::sock_filter>().cast_mut();
            let program = libc::sock_fprog { len: length, filter };
            // SAFETY: both structs of instructions have the kernel's form, are `len` in number, and live through the call.
            let done = unsafe {
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program)
            };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::runtime_default;
    use super::*;

    #[test]
    fn the_default_profile_compiles_to_what_the_kernel_takes() {
        let filter = compile(&runtime_default(0)).unwrap();
        assert_eq!(filter.0.len(), 1);
        // BPF_MAXINSNS of linux/bpf_common.h.
        assert!(filter.0[0].len() < 4096, "{}", filter.0[0].len());
    }

    #[test]
    fn conditions_with_an_action_of_their_own_have_a_program() {
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["socket"], "action": "SCMP_ACT_KILL_PROCESS", "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}]}]}"#;
        let profile: Seccomp = serde_json::from_str(profile).unwrap();
        let filter = compile(&profile).unwrap();
        assert_eq!(filter.0.len(), 2);
        assert_eq!(filter.0[1][2].k, 0x5_0000 | 13, "the errno in front");
        let wrong = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#;
        assert!(matches!(compile(&serde_json::from_str(wrong).unwrap()), Err(Error::Argument(6))));
    }
}
