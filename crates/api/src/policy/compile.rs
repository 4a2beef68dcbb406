//! Compiles the expressions of policies and conditions, and says what is wrong with them.

use cel::{Environment, Program, Stage, Type};
use machinery::{Cause, Faults, Object};
use serde_json::Value;

use super::environment::{environment, namespace};
use super::{Condition, Mutation, Policy, Validation};

/// Compiles the conditions in the list at `path`.
pub fn compile_conditions(
    conditions: &Value,
    has_params: bool,
    path: &str,
    faults: &mut Faults,
) -> Vec<Condition> {
    let environment = environment(has_params);
    let mut compiled = Vec::new();
    for (index, condition) in conditions.as_array().into_iter().flatten().enumerate() {
        let path = format!("{path}[{index}].expression");
        if let Some((program, _)) =
            compile(&environment, &condition["expression"], &path, Wanted::Bool, faults)
        {
            compiled.push(Condition { name: text(condition, "name"), program });
        }
    }
    compiled
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

#[derive(Clone, Copy)]
enum Wanted {
    Bool,
    String,
    StringOrNull,
    Configuration,
    JsonPatches,
    Anything,
}

impl Wanted {
    fn fits(self, result: &Type<'_>) -> bool {
        let is_patch =
            |of: &Type<'_>| matches!(of, Type::Dyn) || *of == Type::Message("JSONPatch".to_owned());
        match (self, result) {
            (_, Type::Dyn) | (Wanted::Anything, _) | (Wanted::Bool, Type::Bool) => true,
            (Wanted::String, Type::String) | (Wanted::StringOrNull, Type::String | Type::Null) => true,
            (Wanted::Configuration, Type::Message(name)) => name == "Object",
            (Wanted::JsonPatches, Type::List(of)) => is_patch(of),
            _ => false,
        }
    }

    fn in_words(self) -> &'static str {
        match self {
            Wanted::Bool => "must evaluate to bool",
            Wanted::String => "must evaluate to string",
            Wanted::StringOrNull => "must evaluate to one of: string, null",
            Wanted::Configuration => "must evaluate to Object",
            Wanted::JsonPatches => "must evaluate to list(JSONPatch)",
            Wanted::Anything => "",
        }
    }
}

fn compile<'s>(
    environment: &Environment<'s>,
    expression: &Value,
    path: &str,
    wanted: Wanted,
    faults: &mut Faults,
) -> Option<(Program, Type<'s>)> {
    // A missing expression is reported where shapes are checked.
    let text = expression.as_str().filter(|text| !text.trim().is_empty())?;
    let why = match Program::compile(environment, text) {
        Ok((program, result)) if wanted.fits(&result) => return Some((program, result)),
        Ok(_) => wanted.in_words().to_owned(),
        Err(error) => match error.stage() {
            Stage::Compilation => format!("compilation failed: {error}"),
            Stage::Planning => format!("program instantiation failed: {error}"),
        },
    };
    faults.push(Cause::invalid(path, expression, &why));
    None
}

impl Policy {
    /// The policy's expressions; what is wrong with them goes to `faults`.
    pub fn compile(policy: &Object, faults: &mut Faults) -> Self {
        let null = Value::Null;
        let spec = policy.0.get("spec").unwrap_or(&null);
        let has_params = !spec["paramKind"].is_null();
        let items = |key: &str| spec[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut compiled = Policy {
            conditions: compile_conditions(
                &spec["matchConditions"],
                has_params,
                "spec.matchConditions",
                faults,
            ),
            has_params,
            ..Policy::default()
        };
        let mut environment =
            environment(has_params).with("namespaceObject", Type::of_schema(namespace())).with_messages();
        for (index, variable) in items("variables").iter().enumerate() {
            let path = format!("spec.variables[{index}].expression");
            let name = text(variable, "name");
            // One that says nothing isn't there.
            if text(variable, "expression").trim().is_empty() {
                continue;
            }
            let found = compile(&environment, &variable["expression"], &path, Wanted::Anything, faults);
            // What uses a variable that is wrong is not wrong itself.
            let of = found.as_ref().map_or(Type::Dyn, |(_, of)| of.clone());
            compiled.variables.extend(found.map(|(program, _)| (name.clone(), program)));
            environment = environment.with(format!("variables.{name}"), of);
        }
        for (index, validation) in items("validations").iter().enumerate() {
            let path = format!("spec.validations[{index}]");
            let mut part = |key: &str, wanted| {
                let path = format!("{path}.{key}");
                compile(&environment, &validation[key], &path, wanted, faults).map(|(program, _)| program)
            };
            let (program, message_program) =
                (part("expression", Wanted::Bool), part("messageExpression", Wanted::String));
            compiled.validations.extend(program.map(|program| Validation {
                program,
                text: text(validation, "expression").trim().to_owned(),
                message: text(validation, "message").trim().to_owned(),
                message_program,
                reason: text(validation, "reason"),
            }));
        }
        for (index, audit) in items("auditAnnotations").iter().enumerate() {
            let path = format!("spec.auditAnnotations[{index}].valueExpression");
            let found = compile(&environment, &audit["valueExpression"], &path, Wanted::StringOrNull, faults);
            compiled.audits.extend(found.map(|(program, _)| (text(audit, "key"), program)));
        }
        for (index, mutation) in items("mutations").iter().enumerate() {
            let is_json_patch = mutation["patchType"] == "JSONPatch";
            let (part, wanted) = match is_json_patch {
                true => ("jsonPatch", Wanted::JsonPatches),
                false => ("applyConfiguration", Wanted::Configuration),
            };
            let path = format!("spec.mutations[{index}].{part}.expression");
            let found = compile(&environment, &mutation[part]["expression"], &path, wanted, faults);
            compiled.mutations.extend(found.map(|(program, _)| Mutation { program, is_json_patch }));
        }
        compiled
    }
}
