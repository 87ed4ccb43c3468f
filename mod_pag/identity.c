/* Which PAG a request is served in.
 *
 * Apache walks the directories before it authenticates, and with kAFS a first look-up by the wrong identity hides a file from
 * its owner. So the authentication hooks are run here, from translate_name and map_to_storage, and their answer is given
 * again when Apache asks for it: a Negotiate token is accepted once. */
#include "mod_pag.h"

#include "apr_strings.h"
#include "http_core.h"
#include "http_request.h"

APLOG_USE_MODULE(pag);

pag_request *pag_request_of(request_rec *r)
{
    pag_request *state;

    while (r->main) {
        r = r->main;
    }
    state = ap_get_module_config(r->request_config, &pag_module);
    if (!state) {
        state = apr_pcalloc(r->pool, sizeof *state);
        ap_set_module_config(r->request_config, &pag_module, state);
    }
    return state;
}

static const pag_location *location_of(request_rec *r)
{
    return ap_get_module_config(r->per_dir_config, &pag_module);
}

static int same(const char *one, const char *other)
{
    return one == other || (one && other && strcmp(one, other) == 0);
}

static pag_wish *wish(request_rec *r, const char *key, const char *who, const char *source)
{
    pag_wish *wish = apr_pcalloc(r->pool, sizeof *wish);
    const pag_seed seed = PAG_SEED_INIT;

    wish->key = key;
    wish->who = who;
    wish->source = source;
    wish->seed = seed;
    wish->seed.cells = location_of(r)->cells;
    wish->seed.timeout_ms = (unsigned int)apr_time_as_msec(pag_settings.timeout);
    return wish;
}

static const char *keytab_key(request_rec *r, const char *keytab, const char *principal)
{
    return apr_pstrcat(r->pool, "keytab ", principal, " ", keytab, NULL);
}

static pag_wish *keytab_wish(request_rec *r, const char *keytab, const char *principal)
{
    pag_wish *made = wish(r, keytab_key(r, keytab, principal), principal, apr_pstrcat(r->pool, "keytab ", keytab, NULL));

    made->seed.keytab = keytab;
    made->seed.principal = principal;
    return made;
}

/* The user's delegated ticket. A ccache is known by its principal, which mod_auth_gssapi names, or else by its own name. */
static int user_wish(request_rec *r, pag_wish **made)
{
    const char *variable = location_of(r)->variable ? location_of(r)->variable : "KRB5CCNAME";
    const char *ccache = apr_table_get(r->subprocess_env, variable);
    const char *principal = apr_table_get(r->subprocess_env, "GSS_NAME");

    if (!ccache || !*ccache) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "no PAG for %s, so the answer is 503: %s is not set for this request. Either "
                      "the client has not delegated a ticket (curl: --delegation always; Firefox: "
                      "network.negotiate-auth.delegation-uris), or GssapiDelegCcacheDir is missing", r->user, variable);
        return HTTP_SERVICE_UNAVAILABLE;
    }
    /* With its length, since a user's name may hold anything. */
    *made = wish(r, apr_psprintf(r->pool, "user %" APR_SIZE_T_FMT " %s %s", strlen(r->user), r->user, principal ? principal : ccache),
                 principal ? principal : r->user, ccache);
    (*made)->seed.ccache = ccache;
    return OK;
}

/* Runs the hooks that decide about access and authenticate, as ap_process_request_internal does, up to the user's name. */
static int authenticate(request_rec *r, pag_request *state)
{
    int any = ap_satisfies(r) == SATISFY_ANY, status = ap_run_access_checker(r);

    if (any && status == OK) {
        return OK;
    }
    if (!any && status != OK) {
        return status == DECLINED ? HTTP_INTERNAL_SERVER_ERROR : status;
    }
    status = ap_run_access_checker_ex(r);
    if (status != DECLINED && (status != OK || ap_run_force_authn(r) != OK)) {
        return status;
    }
    if (!state->authenticated || !same(state->auth_type, ap_auth_type(r))) {
        state->authenticating = 1;
        status = ap_run_check_user_id(r);
        state->authenticating = 0;
        if (status != OK) {
            return status == DECLINED ? HTTP_INTERNAL_SERVER_ERROR : status;
        }
        state->authenticated = 1;
        state->auth_type = ap_auth_type(r);
        state->user = r->user;
        state->ap_auth_type = r->ap_auth_type;
    }
    r->user = state->user;
    r->ap_auth_type = state->ap_auth_type;
    return OK;
}

int pag_identity_again(request_rec *r)
{
    pag_request *state = pag_request_of(r);

    if (state->authenticating || state->kind == PAG_OFF || state->kind == PAG_KEYTAB) {
        return DECLINED;
    }
    if (state->authenticated && same(state->auth_type, ap_auth_type(r))) {
        r->user = state->user;
        r->ap_auth_type = state->ap_auth_type;
        return OK;
    }
    if (r->main) {
        return DECLINED;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "no PAG for %s, so the answer is 503: the directives that authenticate it (AuthType, "
                  "Require) stand in a <Directory> or a .htaccess, where they come too late; put them into the <Location> that "
                  "has PagEnable", r->uri);
    return HTTP_SERVICE_UNAVAILABLE;
}

int pag_identity_verify(request_rec *r)
{
    pag_request *state = pag_request_of(r);

    if (r->main || state->kind == PAG_OFF || state->kind == PAG_KEYTAB) {
        return DECLINED;
    }
    if (state->authenticated && !r->user) {
        r->user = state->user;
        r->ap_auth_type = state->ap_auth_type;
    }
    if (same(r->user, state->authenticated ? state->user : NULL)) {
        return DECLINED;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "%s is refused with 503: its PAG is that of %s, but its user turned out to be %s",
                  r->uri, state->authenticated ? state->user : "no user", r->user ? r->user : "no user");
    return HTTP_SERVICE_UNAVAILABLE;
}

/* A sub-request is part of its request and is served in the same PAG, or not at all. */
static int decide_part(request_rec *r)
{
    const pag_location *location = location_of(r);
    pag_request *state = pag_request_of(r);
    const char *other = NULL;

    /* Without a URI it is in no location: what it reads is for the location of its request. */
    if (r->uri && *r->uri != '/') {
        return DECLINED;
    }
    if (location->enable != 1) {
        other = state->member ? "none, since it has no PagEnable" : NULL;
    }
    else if (location->keytab) {
        const char *key = keytab_key(r, location->keytab, location->principal);

        other = same(state->key, key) ? NULL : location->principal;
    }
    else if (state->kind != PAG_USER && ap_some_authn_required(r)) {
        other = "the user's";
    }
    else if (state->kind != PAG_USER && location->default_keytab) {
        const char *key = keytab_key(r, location->default_keytab, location->default_principal);

        other = same(state->key, key) ? NULL : location->default_principal;
    }
    else if (state->kind != PAG_USER && state->member) {
        other = "none";
    }
    if (!other) {
        return DECLINED;
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "the sub-request for %s is refused with 503: its location has another identity (%s) "
                  "than the request that it belongs to (%s)", r->uri, other,
                  state->member ? pag_member_who(state->member) : "none");
    return HTTP_SERVICE_UNAVAILABLE;
}

/* Output of earlier requests on this connection that the client has not read yet: it is written before the thread has
 * another identity. */
static void write_the_rest(request_rec *r)
{
    conn_rec *c = r->connection;

    if (c->data_in_output_filters) {
        apr_bucket_brigade *brigade = apr_brigade_create(r->pool, c->bucket_alloc);

        APR_BRIGADE_INSERT_TAIL(brigade, apr_bucket_flush_create(c->bucket_alloc));
        ap_pass_brigade(c->output_filters, brigade);
        apr_brigade_cleanup(brigade);
    }
}

int pag_identity_decide(request_rec *r)
{
    const pag_location *location = location_of(r);
    pag_request *state;
    pag_wish *wanted = NULL;
    pag_kind kind;
    int status;

    if (r->main) {
        return decide_part(r);
    }
    state = pag_request_of(r);
    if (state->decided_by == r->per_dir_config) {
        return DECLINED;
    }
    state->decided_by = r->per_dir_config;
    if (location->enable != 1) {
        kind = PAG_OFF;
    }
    else if (r->connection->master) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "no PAG for %s, so the answer is 503: it came by HTTP/2, which hands a "
                      "request from thread to thread; take h2 and h2c out of Protocols", r->uri);
        return HTTP_SERVICE_UNAVAILABLE;
    }
    else if (location->keytab) {
        kind = PAG_KEYTAB;
        wanted = keytab_wish(r, location->keytab, location->principal);
    }
    else {
        if ((status = authenticate(r, state)) != OK) {
            return status;
        }
        if (state->authenticated && r->user) {
            kind = PAG_USER;
            if ((status = user_wish(r, &wanted)) != OK) {
                return status;
            }
        }
        else if (location->default_keytab) {
            kind = PAG_DEFAULT;
            wanted = keytab_wish(r, location->default_keytab, location->default_principal);
        }
        else {
            kind = PAG_NONE;
        }
    }
    if (state->authenticated) {
        /* Apache asks for the user itself, with the whole configuration, and has all hooks decide whether that user may. */
        r->user = NULL;
        r->ap_auth_type = NULL;
    }
    state->kind = kind;
    if (state->member && wanted && same(state->key, wanted->key) && state->member == pag_pool_inside()) {
        return DECLINED;
    }
    pag_pool_leave(r->server);
    state->member = NULL;
    state->key = wanted ? wanted->key : NULL;
    if (!wanted) {
        if (kind == PAG_NONE) {
            ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "%s %s is served in no PAG", r->method, r->uri);
        }
        return DECLINED;
    }
    write_the_rest(r);
    if ((status = pag_pool_enter(r, wanted)) != HTTP_OK) {
        return status;
    }
    state->member = pag_pool_inside();
    /* A cache would hand one user's page to others. */
    r->no_cache = 1;
    ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "%s %s is served in PAG %u of %s", r->method, r->uri,
                  pag_member_number(state->member), pag_member_who(state->member));
    return DECLINED;
}
