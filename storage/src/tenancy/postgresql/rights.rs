//! What a tenant's user may do: how it is found, how it should be, and the statements
//! between the two.

use super::connection::Session;
use super::join;
use super::names::identifier;
use crate::tenancy::{Claim, Stage, TenancyError};

/// Connections that a tenant's user may have at a time, of all its pods together. A
/// server has 100 unless its administrator says otherwise; kine keeps 20 idle ones at
/// most, and opens more when it needs them.
pub const CONNECTIONS: i32 = 50;

/// Owns the tables of frozen tenants, and may do nothing. It must be nobody with rights: what a
/// tenant has made for its table, such as a function that an index is of, is run as the table's
/// owner when the server analyzes it.
pub const KEEPER: &str = "steward_keeper";

/// One thing that differs.
#[derive(Debug, PartialEq, Eq)]
pub struct Repair {
    /// A sentence without full stop.
    pub why: String,
    /// What mends it. `None`: only a person can.
    pub sql: Option<String>,
}

impl Repair {
    fn new(why: impl Into<String>, sql: impl Into<String>) -> Self {
        Repair {
            why: why.into(),
            sql: Some(sql.into()),
        }
    }
}

/// What the server says of a tenant's role and database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What the role lacks of the attributes that it should have, as in `ALTER ROLE`.
    pub attributes: Vec<String>,
    /// Whether it may log in.
    pub login: bool,
    pub connections: i32,
    pub expires: bool,
    /// Databases in which the role has settings for its sessions (`None`: all of them). A
    /// tenant can make such settings itself.
    pub settings: Vec<Option<String>>,
    /// Roles whose rights it has.
    pub member_of: Vec<String>,
    /// Roles of others that have its rights.
    pub members: Vec<String>,
    /// Other databases that name it in their own list of rights.
    pub databases: Vec<String>,
    /// Where else it owns something, or was given a right on what all databases share.
    pub elsewhere: Vec<String>,
    /// Owner of its database, if that is not an administrator.
    pub owner: Option<String>,
    /// Whether the database can be entered.
    pub open: bool,
    /// Who has which right on the database, the owner aside, and whether he can give it to others.
    pub grants: Vec<(String, String, bool)>,
}

/// Asks the server. Role and database are there.
pub async fn find(session: &mut Session, claim: &Claim) -> Result<Found, TenancyError> {
    let user = [claim.user.as_str()];
    let both = [claim.user.as_str(), claim.schema.as_str()];
    let schema = [claim.schema.as_str()];
    let mut found = Found::default();

    // Attributes, login, connections, an end of the password, places of settings.
    type Role = (Vec<String>, bool, i32, bool, Vec<Option<String>>);
    let role: Vec<Role> = session.rows("look at the user", ROLE, &user).await?;
    for row in role {
        (
            found.attributes,
            found.login,
            found.connections,
            found.expires,
            found.settings,
        ) = row;
    }
    found.member_of = names(session.rows("look at roles", MEMBER_OF, &user).await?);
    found.members = names(session.rows("look at members", MEMBERS, &user).await?);
    found.databases = names(session.rows("look at rights", DATABASES, &both).await?);
    found.elsewhere = names(session.rows("look at rights", ELSEWHERE, &both).await?);

    let database: Vec<(Option<String>, bool)> = session
        .rows("look at the database", DATABASE, &schema)
        .await?;
    for (owner, open) in database {
        (found.owner, found.open) = (owner, open);
    }
    found.grants = session.rows("look at rights", GRANTS, &schema).await?;
    Ok(found)
}

fn names(rows: Vec<(String,)>) -> Vec<String> {
    rows.into_iter().map(|row| row.0).collect()
}

/// What differs, in the order in which it is to be mended.
pub fn repairs(found: &Found, claim: &Claim) -> Vec<Repair> {
    let user = identifier(&claim.user);
    let mut repairs = of_role(found, claim);
    let on = |name: &str| format!("on database {}", identifier(name));
    for name in &found.databases {
        repairs.push(Repair::new(
            format!("user {:?} has rights on database {name:?}", claim.user),
            format!("revoke all {} from {user} cascade", on(name)),
        ));
    }
    let database = on(&claim.schema);
    if let Some(owner) = &found.owner {
        repairs.push(Repair::new(
            format!("database {:?} is owned by {owner:?}", claim.schema),
            format!(
                "alter database {} owner to current_user",
                identifier(&claim.schema)
            ),
        ));
    }
    let enters = claim.stage.lets_in();
    let mut connect = !enters;
    for (grantee, right, passes_on) in &found.grants {
        if enters && *grantee == claim.user && right == "CONNECT" && !passes_on {
            connect = true;
            continue;
        }
        let from = match grantee.as_str() {
            "" => "public".to_owned(),
            name => identifier(name),
        };
        repairs.push(Repair::new(
            format!(
                "{} has the right {right} on database {:?}",
                match grantee.as_str() {
                    "" => "everybody".to_owned(),
                    name => format!("{name:?}"),
                },
                claim.schema
            ),
            format!("revoke all {database} from {from} cascade"),
        ));
        // The right one goes with the others of the same user.
        connect &= !enters || *grantee != claim.user;
    }
    if !connect {
        repairs.push(Repair::new(
            format!(
                "user {:?} may not connect to database {:?}",
                claim.user, claim.schema
            ),
            format!("grant connect {database} to {user}"),
        ));
    }
    // Last, so that nobody enters before the rights are right.
    if !found.open {
        repairs.push(Repair::new(
            format!("database {:?} cannot be entered", claim.schema),
            format!(
                "alter database {} allow_connections true",
                identifier(&claim.schema)
            ),
        ));
    }
    repairs
}

fn of_role(found: &Found, claim: &Claim) -> Vec<Repair> {
    let (name, user) = (&claim.user, identifier(&claim.user));
    let mut repairs = Vec::new();
    let alter = |what: &str| format!("alter role {user} {what}");
    for attribute in &found.attributes {
        let why = format!("user {name:?} is not {attribute}");
        repairs.push(Repair::new(why, alter(attribute)));
    }
    let (login, connections) = match claim.stage.lets_in() {
        true => ("login", CONNECTIONS),
        false => ("nologin", 0),
    };
    if found.login != claim.stage.lets_in() {
        let why = format!("user {name:?} is not {login}");
        repairs.push(Repair::new(why, alter(login)));
    }
    if found.connections != connections {
        repairs.push(Repair::new(
            format!("user {name:?} does not have exactly {connections} connections"),
            alter(&format!("connection limit {connections}")),
        ));
    }
    if found.expires {
        let why = format!("the password of user {name:?} expires");
        repairs.push(Repair::new(why, alter("valid until 'infinity'")));
    }
    for database in &found.settings {
        repairs.push(match database {
            None => Repair::new(
                format!("user {name:?} has settings of its own"),
                reset(alter("reset all")),
            ),
            Some(database) => Repair::new(
                format!("user {name:?} has settings of its own in database {database:?}"),
                reset(alter(&format!(
                    "in database {} reset all",
                    identifier(database)
                ))),
            ),
        });
    }
    for role in &found.member_of {
        repairs.push(Repair::new(
            format!("user {name:?} is a member of role {role:?}"),
            format!("revoke {} from {user}", identifier(role)),
        ));
    }
    for member in &found.members {
        repairs.push(Repair::new(
            format!("role {member:?} has the rights of user {name:?}"),
            format!("revoke {user} from {}", identifier(member)),
        ));
    }
    for database in &found.elsewhere {
        repairs.push(Repair {
            why: format!(
                "user {name:?} owns something or was given a right in database {database:?}, \
                 which is not its own: take it away there"
            ),
            sql: None,
        });
    }
    repairs
}

/// A reset of settings that takes away those of PL/pgSQL, too. A tenant's sessions know them,
/// and a server leaves those that a session does not know to superusers.
fn reset(statement: String) -> String {
    format!("do $$begin end$$; {statement}")
}

/// How rights inside of the database differ from those of the stage, asked by the
/// administrator there.
pub async fn repairs_inside(
    session: &mut Session,
    claim: &Claim,
) -> Result<Vec<Repair>, TenancyError> {
    match claim.stage {
        Stage::Serving => repairs_of_owner(session, claim).await,
        Stage::Frozen => repairs_of_reader(session, claim).await,
        // The user does not get there.
        Stage::Incoming | Stage::Left => Ok(Vec::new()),
    }
}

/// What the user of a frozen tenant may do beside reading.
async fn repairs_of_reader(
    session: &mut Session,
    claim: &Claim,
) -> Result<Vec<Repair>, TenancyError> {
    let user = [claim.user.as_str()];
    let both = [claim.user.as_str(), KEEPER];
    let found: Vec<(bool, bool, bool)> = session.rows("look at rights", READER, &both).await?;
    let mut repairs = Vec::new();
    let exact = matches!(found.first(), Some((true, false, true)));
    let makes = session.holds("look at schema public", MAKER, &user).await?;
    if !exact || makes {
        let why = format!(
            "user {:?} does not have the right to read alone",
            claim.user
        );
        repairs.push(Repair::new(why, reader(claim)));
    }
    Ok(repairs)
}

/// Makes the user one that reads, once nobody writes any more: what writes has the table
/// locked from before its rights are looked at to the end of its transaction. The keeper is
/// there, and whoever runs this is a member of it and of the user.
pub fn reader(claim: &Claim) -> String {
    let user = identifier(&claim.user);
    format!(
        "begin; \
         lock table public.kine in access exclusive mode; \
         grant create on schema public to {KEEPER}; \
         alter table public.kine owner to {KEEPER}; \
         revoke create on schema public from {KEEPER}; \
         revoke all on table public.kine from public, {user} cascade; \
         grant select on table public.kine to {user}; \
         revoke create on schema public from {user} cascade; \
         commit"
    )
}

/// Makes the keeper, unless it is there, and joins it.
pub async fn provide_keeper(session: &mut Session) -> Result<(), TenancyError> {
    let there = "select true from pg_catalog.pg_roles where rolname = $1";
    if !session
        .holds("look for the keeper", there, &[KEEPER])
        .await?
    {
        let made = session.run(
            "create the keeper",
            format!(
                "create role {KEEPER} nologin nosuperuser nocreatedb nocreaterole noreplication \
                 nobypassrls noinherit"
            ),
        );
        match made.await {
            // Somebody was faster: it exists, or is being made.
            Err(failure) if matches!(failure.code.as_str(), "42710" | "23505") => {}
            made => made?,
        }
    }
    if session
        .holds("look at the keeper", POWERFUL, &[KEEPER])
        .await?
    {
        return Err(TenancyError::Refused(format!(
            "role {KEEPER:?}, which owns the tables of tenants while they are moved, has rights of \
             its own, which tenants could use: take them away (alter role {KEEPER} nologin \
             nosuperuser nocreatedb nocreaterole noreplication nobypassrls), and its memberships"
        )));
    }
    Ok(join(session, KEEPER).await?)
}

/// What the user of a tenant that serves lacks.
async fn repairs_of_owner(
    session: &mut Session,
    claim: &Claim,
) -> Result<Vec<Repair>, TenancyError> {
    let user = identifier(&claim.user);
    let mut repairs = Vec::new();
    let parameters = [claim.user.as_str()];
    let rights: Vec<(bool,)> = session
        .rows("look at schema public", INSIDE, &parameters)
        .await?;
    match rights.first() {
        None => repairs.push(Repair::new(
            "there is no schema public",
            format!("create schema public; grant usage, create on schema public to {user}"),
        )),
        Some((false,)) => repairs.push(Repair::new(
            format!(
                "user {:?} may not create tables in its database",
                claim.user
            ),
            format!("grant usage, create on schema public to {user}"),
        )),
        Some((true,)) => {}
    }
    let functions = names(session.rows("look at locks", LOCKS, &parameters).await?);
    if !functions.is_empty() {
        repairs.push(Repair::new(
            format!("user {:?} may take locks by number", claim.user),
            format!(
                "revoke execute on function {} from public, {user}",
                functions.join(", ")
            ),
        ));
    }
    let tables: Vec<(String, String)> = session.rows("look at tables", TABLES, &parameters).await?;
    for (name, kind) in tables {
        repairs.push(Repair::new(
            format!("user {:?} does not own {kind} {name:?}", claim.user),
            format!("alter {kind} public.{} owner to {user}", identifier(&name)),
        ));
    }
    Ok(repairs)
}

/// What the server stores of the user's password, where the administrator may see it.
pub async fn verifier(
    session: &mut Session,
    claim: &Claim,
) -> Result<Option<String>, TenancyError> {
    if !session.superuser {
        return Ok(None);
    }
    let sql = "select coalesce(rolpassword, '') from pg_catalog.pg_authid where rolname = $1";
    let rows = session
        .rows("look at the user", sql, &[&claim.user])
        .await?;
    Ok(names(rows).pop())
}

/// Whether kine's table is there.
pub async fn has_table(session: &mut Session) -> Result<bool, TenancyError> {
    let sql = "select true from pg_catalog.pg_class c
        join pg_catalog.pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'public' and c.relname = 'kine' and c.relkind in ('r', 'p')";
    Ok(session.holds("look for the table", sql, &[]).await?)
}

const ROLE: &str = "\
select pg_catalog.array_remove(array[
           case when rolsuper then 'nosuperuser' end,
           case when rolcreaterole then 'nocreaterole' end,
           case when rolcreatedb then 'nocreatedb' end,
           case when rolreplication then 'noreplication' end,
           case when rolbypassrls then 'nobypassrls' end,
           case when rolinherit then 'noinherit' end], null),
       rolcanlogin,
       rolconnlimit,
       rolvaliduntil is not null and rolvaliduntil <> 'infinity',
       array(select d.datname::text from pg_catalog.pg_db_role_setting s
           left join pg_catalog.pg_database d on d.oid = s.setdatabase
           where s.setrole = r.oid order by 1)
from pg_catalog.pg_roles r where rolname = $1";

const MEMBER_OF: &str = "\
select g.rolname::text from pg_catalog.pg_auth_members m
join pg_catalog.pg_roles u on u.oid = m.member
join pg_catalog.pg_roles g on g.oid = m.roleid
where u.rolname = $1 order by 1";

const MEMBERS: &str = "\
select distinct u.rolname::text from pg_catalog.pg_auth_members m
join pg_catalog.pg_roles u on u.oid = m.member
join pg_catalog.pg_roles g on g.oid = m.roleid
where g.rolname = $1 and u.rolname <> current_user and not u.rolsuper and not u.rolcreaterole
order by 1";

const DATABASES: &str = "\
select distinct d.datname::text
from pg_catalog.pg_database d, pg_catalog.aclexplode(d.datacl) a
join pg_catalog.pg_roles r on r.oid = a.grantee
where r.rolname = $1 and d.datname <> $2 order by 1";

/// Rights on databases are looked at one by one, so they do not count here. What others
/// gave it in databases that it may not enter opens nothing: nobody can be kept from giving.
const ELSEWHERE: &str = "\
select distinct coalesce(d.datname::text, 'shared by all') from pg_catalog.pg_shdepend s
join pg_catalog.pg_roles r on r.oid = s.refobjid
left join pg_catalog.pg_database d on d.oid = s.dbid
where s.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass
  and r.rolname = $1
  and s.classid not in ('pg_catalog.pg_database'::pg_catalog.regclass,
                        'pg_catalog.pg_auth_members'::pg_catalog.regclass)
  and (s.dbid = 0 or s.deptype = 'o' and d.datname is distinct from $2)
order by 1";

const DATABASE: &str = "\
select case when r.rolname = current_user or r.rolsuper or r.rolcreatedb then null
       else coalesce(r.rolname::text, '?') end,
       datallowconn
from pg_catalog.pg_database d left join pg_catalog.pg_roles r on r.oid = d.datdba
where datname = $1";

/// The same grant may come from two who gave it.
const GRANTS: &str = "\
select coalesce(r.rolname::text, ''), a.privilege_type::text, bool_or(a.is_grantable)
from pg_catalog.pg_database d,
     pg_catalog.aclexplode(coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) a
left join pg_catalog.pg_roles r on r.oid = a.grantee
where d.datname = $1 and a.grantee <> d.datdba
group by 1, 2 order by 1, 2";

/// Whether the keeper can do anything, by itself or as a member of others. Roles of tenants, who
/// may have made it a member of theirs, can nothing of this.
const POWERFUL: &str = "\
select true from pg_catalog.pg_roles k, pg_catalog.pg_roles r
where k.rolname = $1
  and pg_catalog.pg_has_role(k.oid, r.oid, 'member')
  and (r.rolsuper or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolbypassrls
       or r.oid = k.oid and r.rolcanlogin
       or r.rolname like 'pg\\_%')
limit 1";

/// Whether the user reads kine's table, whether it can do more with it, and whether the keeper
/// owns it.
const READER: &str = "\
select pg_catalog.has_table_privilege(r.oid, c.oid, 'select'),
       c.relowner = r.oid
       or pg_catalog.has_table_privilege(r.oid, c.oid,
              'insert, update, delete, truncate, references, trigger')
       or pg_catalog.has_any_column_privilege(r.oid, c.oid, 'insert, update, references'),
       exists (select from pg_catalog.pg_roles k
               where k.oid = c.relowner and k.rolname = $2)
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace, pg_catalog.pg_roles r
where n.nspname = 'public' and c.relname = 'kine' and r.rolname = $1";

/// Whether the user was given the right to make tables.
const MAKER: &str = "\
select true from pg_catalog.pg_namespace n, pg_catalog.aclexplode(n.nspacl) a
join pg_catalog.pg_roles r on r.oid = a.grantee
where n.nspname = 'public' and r.rolname = $1 and a.privilege_type = 'CREATE' limit 1";

const INSIDE: &str = "\
select pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
   and pg_catalog.has_schema_privilege(r.oid, n.oid, 'create')
from pg_catalog.pg_namespace n, pg_catalog.pg_roles r
where n.nspname = 'public' and r.rolname = $1";

/// Functions that take memory for locks which all databases share, a million in one
/// statement. Only a superuser takes them from a tenant.
const LOCKS: &str = "\
select 'pg_catalog.' || p.oid::pg_catalog.regprocedure::text from pg_catalog.pg_proc p
where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
  and p.proname ~ '^pg_(try_)?advisory_(xact_)?lock(_shared)?$'
  and pg_catalog.has_function_privilege($1, p.oid, 'execute')
  and exists (select from pg_catalog.pg_roles a where a.rolname = current_user and a.rolsuper)
order by 1";

/// kine's table, as a restored copy may bring it.
const TABLES: &str = "\
select c.relname::text, case c.relkind when 'S' then 'sequence' else 'table' end
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_roles r on r.oid = c.relowner
where n.nspname = 'public' and r.rolname <> $1
  and (c.relname = 'kine' and c.relkind in ('r', 'p')
    or c.relname = 'kine_id_seq' and c.relkind = 'S'
       and not exists (select from pg_catalog.pg_depend p
                       where p.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
                         and p.objid = c.oid and p.deptype in ('a', 'i')))
order by c.relkind";

#[cfg(test)]
mod tests {
    use super::*;

    fn exact() -> Found {
        Found {
            login: true,
            connections: CONNECTIONS,
            open: true,
            grants: vec![("u".to_owned(), "CONNECT".to_owned(), false)],
            ..Found::default()
        }
    }

    fn sql(change: impl FnOnce(&mut Found)) -> Vec<String> {
        let claim = Claim {
            uid: "1".to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: "s".to_owned(),
            user: "u".to_owned(),
            role: None,
            stage: Stage::Serving,
            prefix: None,
            replicas: None,
        };
        let mut found = exact();
        change(&mut found);
        let repairs = repairs(&found, &claim);
        let sql = repairs.into_iter().filter_map(|repair| repair.sql);
        sql.collect()
    }

    #[test]
    fn what_is_exact_stays() {
        assert_eq!(sql(|_| ()), Vec::<String>::new());
    }

    #[test]
    fn a_database_is_opened_last() {
        let repairs = sql(|found| {
            found.open = false;
            found.grants = vec![
                (String::new(), "CONNECT".to_owned(), false),
                ("x".to_owned(), "CREATE".to_owned(), false),
            ];
        });
        assert_eq!(
            repairs,
            [
                "revoke all on database \"s\" from public cascade",
                "revoke all on database \"s\" from \"x\" cascade",
                "grant connect on database \"s\" to \"u\"",
                "alter database \"s\" allow_connections true",
            ]
        );
    }

    /// Who is not to get in does not, and is not given the right to.
    #[test]
    fn nobody_enters_what_is_not_to_be_entered() {
        let claim = Claim {
            uid: "1".to_owned(),
            namespace: "n".to_owned(),
            name: "t".to_owned(),
            schema: "s".to_owned(),
            user: "u".to_owned(),
            role: None,
            stage: Stage::Left,
            prefix: None,
            replicas: None,
        };
        let sql = |found: &Found, stage| {
            let repairs = repairs(found, &claim.at(stage));
            let sql = repairs.into_iter().filter_map(|repair| repair.sql);
            sql.collect::<Vec<_>>()
        };
        let out = [
            "alter role \"u\" nologin",
            "alter role \"u\" connection limit 0",
            "revoke all on database \"s\" from \"u\" cascade",
        ];
        for stage in [Stage::Incoming, Stage::Left] {
            assert_eq!(sql(&exact(), stage), out);
        }
        assert_eq!(sql(&exact(), Stage::Frozen), Vec::<String>::new());
        let shut = Found {
            open: true,
            ..Found::default()
        };
        assert_eq!(sql(&shut, Stage::Incoming), Vec::<String>::new());
    }

    #[test]
    fn a_right_too_many_is_taken_with_the_others_and_the_right_one_given_again() {
        let repairs = sql(|found| {
            found
                .grants
                .push(("u".to_owned(), "CREATE".to_owned(), false));
        });
        assert_eq!(
            repairs,
            [
                "revoke all on database \"s\" from \"u\" cascade",
                "grant connect on database \"s\" to \"u\"",
            ]
        );
    }
}
