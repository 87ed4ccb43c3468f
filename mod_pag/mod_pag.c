/* The hooks: where a thread enters a PAG, and where it leaves.
 *
 * A thread enters before Apache looks at the file system for the request, and it leaves when the request's EOR bucket has
 * been destroyed. With that bucket go the request's pool and its open files, so it is destroyed by this thread, inside the
 * PAG: the connection is flushed after it. mpm_event would otherwise have another thread write the rest. */
#include "mod_pag.h"

#include "apr_strings.h"
#include "http_connection.h"
#include "http_core.h"
#include "http_protocol.h"
#include "http_request.h"
#include "mpm_common.h"
#include "util_filter.h"

static ap_filter_rec_t *guard_filter, *end_filter;

/* The PAG that this thread's request was in, also when a redirect has taken it out. */
static __thread int was_inside;

static void leave(server_rec *server)
{
    pag_pool_leave(server);
    was_inside = 0;
}

static int decide(request_rec *r)
{
    int status = pag_identity_decide(r);

    was_inside |= pag_pool_inside() != NULL;
    return status;
}

/* Some modules look at the file system here already: mod_userdir, mod_rewrite's conditions. */
static int translate_name(request_rec *r)
{
    return pag_settings.used ? decide(r) : DECLINED;
}

/* What has been translated may be in another location. It is asked for here, since Apache has set the configuration back to
 * that of the server. */
static int map_to_storage(request_rec *r)
{
    ap_conf_vector_t *before = r->per_dir_config;
    int status;

    if (!pag_settings.used) {
        return DECLINED;
    }
    if ((status = ap_location_walk(r)) || (status = ap_if_walk(r)) || (status = decide(r)) != DECLINED) {
        return status;
    }
    r->per_dir_config = before;
    return DECLINED;
}

/* Files are read, not mapped: in a mapping, a token that has ended is a SIGBUS. And no other thread than the one in the PAG
 * reads them, which a handler that suspends its request would have. */
static apr_status_t guard(ap_filter_t *f, apr_bucket_brigade *brigade)
{
    pag_request *state = pag_request_of(f->r);
    apr_bucket *bucket;

    if (state->member != pag_pool_inside()) {
        ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, f->r, "%s is cut off: its handler writes outside of the request's thread, and so "
                      "outside of its PAG", f->r->uri);
        f->c->aborted = 1;
        apr_brigade_cleanup(brigade);
        return APR_ECONNABORTED;
    }
    for (bucket = APR_BRIGADE_FIRST(brigade); bucket != APR_BRIGADE_SENTINEL(brigade); bucket = APR_BUCKET_NEXT(bucket)) {
        if (APR_BUCKET_IS_FILE(bucket)) {
            apr_bucket_file_enable_mmap(bucket, 0);
        }
    }
    return ap_pass_brigade(f->next, brigade);
}

static void insert_guard(request_rec *r)
{
    if (pag_request_of(r)->member) {
        ap_add_output_filter_handle(guard_filter, NULL, r, r->connection);
    }
}

/* At the end of the request. */
static apr_status_t end_request(ap_filter_t *f, apr_bucket_brigade *brigade)
{
    apr_bucket *bucket;
    apr_status_t status;

    if (!was_inside) {
        return ap_pass_brigade(f->next, brigade);
    }
    for (bucket = APR_BRIGADE_FIRST(brigade); bucket != APR_BRIGADE_SENTINEL(brigade); bucket = APR_BUCKET_NEXT(bucket)) {
        if (AP_BUCKET_IS_EOR(bucket)) {
            break;
        }
    }
    if (bucket == APR_BRIGADE_SENTINEL(brigade)) {
        return ap_pass_brigade(f->next, brigade);
    }
    APR_BRIGADE_INSERT_TAIL(brigade, apr_bucket_flush_create(f->c->bucket_alloc));
    status = ap_pass_brigade(f->next, brigade);
    /* If the connection was cut off, the bucket is still here. */
    apr_brigade_cleanup(brigade);
    leave(f->c->base_server);
    return status;
}

static int pre_connection(conn_rec *c, void *socket)
{
    if (pag_settings.used && !c->master) {
        ap_add_output_filter_handle(end_filter, NULL, NULL, c);
    }
    return OK;
}

/* A handler that suspends its request leaves it to other threads. */
static void suspend_connection(conn_rec *c, request_rec *r)
{
    if (pag_pool_inside()) {
        ap_log_cerror(APLOG_MARK, APLOG_ERR, 0, c, "a request is cut off: its handler has suspended it, which is not possible in a PAG");
        c->aborted = 1;
        leave(c->base_server);
    }
}

/* Each request begins in no PAG, whatever became of the one before. */
static int create_request(request_rec *r)
{
    if (!r->main && !r->prev && pag_pool_inside()) {
        ap_log_rerror(APLOG_MARK, APLOG_CRIT, 0, r, "this thread is still in the PAG of an earlier request, and leaves it now");
        leave(r->server);
    }
    return OK;
}

static void child_init(apr_pool_t *child, server_rec *server)
{
    if (pag_settings.used) {
        pag_pool_start(child, server);
    }
}

static int pre_config(apr_pool_t *conf, apr_pool_t *log, apr_pool_t *temp)
{
    pag_reset_settings();
    return OK;
}

/* Modules that start programs from a process of their own. These would run outside of the PAG. */
static const struct {
    const char *module, *instead;
} outsiders[] = {
    { "mod_cgid.c", "mod_cgi, which starts programs inside the PAG" },
    { "mod_fcgid.c", "mod_cgi, or mod_proxy_fcgi for programs that need no PAG" },
};

static int post_config(apr_pool_t *conf, apr_pool_t *log, apr_pool_t *temp, server_rec *server)
{
    unsigned int i;

    /* The server tells it when it begins to serve. */
    ap_add_version_component(conf, "mod_pag/" MOD_PAG_VERSION);
    if (!pag_settings.used) {
        return OK;
    }
    for (i = 0; i < sizeof outsiders / sizeof outsiders[0]; i++) {
        if (ap_find_linked_module(outsiders[i].module)) {
            ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_EMERG, 0, server, "mod_pag: PagEnable and %s exclude each other, since "
                         "its programs are children of a daemon of its own, outside of each request's PAG. Load %s",
                         outsiders[i].module, outsiders[i].instead);
            return HTTP_INTERNAL_SERVER_ERROR;
        }
    }
    for (; server; server = server->next) {
        const core_server_config *core = ap_get_core_module_config(server->module_config);
        int p;

        for (p = 0; ap_find_linked_module("mod_http2.c") && core->protocols && p < core->protocols->nelts; p++) {
            const char *protocol = APR_ARRAY_IDX(core->protocols, p, const char *);

            if (strcmp(protocol, "h2") == 0 || strcmp(protocol, "h2c") == 0) {
                ap_log_error(APLOG_MARK, APLOG_STARTUP | APLOG_EMERG, 0, server, "mod_pag: PagEnable and the protocol %s exclude "
                             "each other, since HTTP/2 hands a request from thread to thread, outside of its PAG. Take it out "
                             "of Protocols, or unload mod_http2", protocol);
                return HTTP_INTERNAL_SERVER_ERROR;
            }
        }
    }
    return OK;
}

static void register_hooks(apr_pool_t *pool)
{
    ap_hook_pre_config(pre_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_post_config(post_config, NULL, NULL, APR_HOOK_MIDDLE);
    ap_hook_child_init(child_init, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_pre_connection(pre_connection, NULL, NULL, APR_HOOK_LAST);
    ap_hook_suspend_connection(suspend_connection, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_create_request(create_request, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_translate_name(translate_name, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_map_to_storage(map_to_storage, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_check_authn(pag_identity_again, NULL, NULL, APR_HOOK_REALLY_FIRST, AP_AUTH_INTERNAL_PER_CONF);
    ap_hook_fixups(pag_identity_verify, NULL, NULL, APR_HOOK_REALLY_FIRST);
    ap_hook_insert_filter(insert_guard, NULL, NULL, APR_HOOK_REALLY_LAST);
    ap_hook_handler(pag_status_handler, NULL, NULL, APR_HOOK_MIDDLE);
    guard_filter = ap_register_output_filter("PAG_GUARD", guard, NULL, AP_FTYPE_RESOURCE - 1);
    end_filter = ap_register_output_filter("PAG_END", end_request, NULL, AP_FTYPE_CONNECTION);
}

AP_DECLARE_MODULE(pag) = {
    STANDARD20_MODULE_STUFF,
    pag_create_location,
    pag_merge_locations,
    NULL,
    NULL,
    pag_directives,
    register_hooks,
};
