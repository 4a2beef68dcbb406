//! `authorizer` in expressions: what may the requesting user do?

use std::sync::Arc;

use access::{Attributes, Authorizer, UserInfo, Wanted};
use api::policy::AuthorizerValues;
use cel::{Error, External, Value};
use store::State;

use crate::admission::AdmissionRequest;

/// Whom to ask, about whom, as of when.
#[derive(Clone)]
struct Asker {
    authorizer: Arc<Authorizer>,
    state: State,
    who: UserInfo,
}

/// What is asked so far.
#[derive(Clone)]
enum Question {
    Anything,
    Path(String),
    Group(String),
    Resource(Check),
    Decided(bool, String),
}

#[derive(Clone, Default)]
struct Check {
    group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    fields: String,
}

struct Guard {
    asker: Asker,
    question: Question,
}

/// What expressions ask about `request`.
pub(super) fn values(authorizer: &Arc<Authorizer>, request: &AdmissionRequest<'_>) -> AuthorizerValues {
    let asker =
        Asker { authorizer: authorizer.clone(), state: request.state.clone(), who: request.who.clone() };
    let resource = request.named.resource;
    let check = Check {
        group: resource.group.to_owned(),
        resource: resource.plural.to_owned(),
        subresource: request.subresource.to_owned(),
        namespace: request.named.namespace.to_owned(),
        name: request.named.name.to_owned(),
        fields: String::new(),
    };
    let own = Guard { asker: asker.clone(), question: Question::Resource(check) };
    AuthorizerValues {
        authorizer: Arc::new(Guard { asker, question: Question::Anything }),
        request_resource: Arc::new(own),
    }
}

impl Guard {
    fn next(&self, question: Question) -> Result<Value<'static>, Error> {
        Ok(Value::External(Arc::new(Guard { asker: self.asker.clone(), question })))
    }

    fn ask(&self, wanted: &Wanted<'_>) -> Result<Value<'static>, Error> {
        let reason = self.asker.authorizer.allows(&self.asker.state, &self.asker.who, wanted);
        let text = reason.as_ref().map(ToString::to_string).unwrap_or_default();
        self.next(Question::Decided(reason.is_some(), text))
    }
}

impl External for Guard {
    fn type_name(&self) -> &'static str {
        match self.question {
            Question::Anything => "kubernetes.authorization.Authorizer",
            Question::Path(_) => "kubernetes.authorization.PathCheck",
            Question::Group(_) => "kubernetes.authorization.GroupCheck",
            Question::Resource(_) => "kubernetes.authorization.ResourceCheck",
            Question::Decided(..) => "kubernetes.authorization.Decision",
        }
    }

    fn call(&self, function: &str, arguments: &[Value<'_>]) -> Result<Value<'static>, Error> {
        let text = |at: usize| arguments.get(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        let none = || Err(Error::Failed("no such overload".into()));
        match (&self.question, function) {
            (Question::Anything, "path") => self.next(Question::Path(text(0))),
            (Question::Anything, "group") => self.next(Question::Group(text(0))),
            (Question::Anything, "serviceAccount") => {
                let (namespace, name) = (text(0), text(1));
                let groups = [
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                    "system:authenticated".to_owned(),
                ];
                let who = UserInfo::new(format!("system:serviceaccount:{namespace}:{name}"), groups);
                let asker = Asker { who, ..self.asker.clone() };
                Ok(Value::External(Arc::new(Guard { asker, question: Question::Anything })))
            }
            (Question::Path(path), "check") => self.ask(&Wanted::Path { verb: &text(0), path }),
            (Question::Group(group), "resource") => {
                let check = Check { group: group.clone(), resource: text(0), ..Check::default() };
                self.next(Question::Resource(check))
            }
            (Question::Resource(check), "check") => self.ask(&Wanted::Object(Attributes {
                verb: &text(0),
                group: &check.group,
                resource: &check.resource,
                subresource: &check.subresource,
                namespace: &check.namespace,
                name: &check.name,
                fields: &check.fields,
            })),
            (Question::Resource(check), _) => {
                let mut check = check.clone();
                match function {
                    "subresource" => check.subresource = text(0),
                    "namespace" => check.namespace = text(0),
                    "name" => check.name = text(0),
                    "fieldSelector" => check.fields = text(0),
                    "labelSelector" => {}
                    _ => return none(),
                }
                self.next(Question::Resource(check))
            }
            (Question::Decided(allowed, reason), _) => Ok(match function {
                "allowed" => Value::Bool(*allowed),
                "reason" => Value::from(reason.as_str()),
                "errored" => Value::Bool(false),
                "error" => Value::from(""),
                _ => return none(),
            }),
            _ => none(),
        }
    }
}
