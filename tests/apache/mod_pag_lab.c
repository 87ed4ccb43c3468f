/* A module for the tests of mod_pag. It tells which identity the thread has that does something, by the token of the keyring
 * client in its session keyring: when a path is looked at, when a body is read, when a request's files are closed. */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/keyctl.h>

#include "apr_strings.h"
#include "httpd.h"
#include "http_config.h"
#include "http_core.h"
#include "http_log.h"
#include "http_main.h"
#include "http_protocol.h"
#include "http_request.h"

extern module AP_MODULE_DECLARE_DATA pag_lab_module;

/* The principal of this thread's token, or "nobody". */
static const char *whoami(char *text, size_t size)
{
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, (long)KEY_SPEC_SESSION_KEYRING, "user", "afs@example.test", 0L);
    long length = key < 0 ? -1 : syscall(SYS_keyctl, KEYCTL_READ, key, text, size - 1, 0L);

    if (length <= 0 || (size_t)length >= size) {
        return strcpy(text, "nobody");
    }
    text[length] = '\0';
    text[strcspn(text, " ")] = '\0';
    return text;
}

/* A body that is made where it is read: each line says who reads it. */
#define LINE 64
#define PIECE 8192

typedef struct {
    apr_bucket_refcount count;
} readers;

static void destroy(void *data)
{
    if (apr_bucket_shared_destroy(data)) {
        apr_bucket_free(data);
    }
}

static apr_status_t read_readers(apr_bucket *bucket, const char **text, apr_size_t *length, apr_read_type_e block)
{
    readers *shared = bucket->data;
    char *piece = apr_bucket_alloc(PIECE, bucket->list), name[LINE];
    apr_size_t size = bucket->length < PIECE ? bucket->length : PIECE, i;
    apr_size_t begin = bucket->start;

    whoami(name, sizeof name);
    for (i = 0; i < size; i++) {
        apr_size_t column = (begin + i) % LINE;

        piece[i] = column == LINE - 1 ? '\n' : column < strlen(name) ? name[column] : ' ';
    }
    if (bucket->length > size) {
        apr_bucket_split(bucket, size);
    }
    apr_bucket_heap_make(bucket, piece, size, apr_bucket_free);
    destroy(shared);
    *text = piece;
    *length = size;
    return APR_SUCCESS;
}

static const apr_bucket_type_t readers_type = {
    "READERS", 5, APR_BUCKET_DATA, destroy, read_readers, apr_bucket_setaside_noop, apr_bucket_shared_split,
    apr_bucket_shared_copy,
};

static apr_bucket *readers_of(apr_bucket_alloc_t *list, apr_size_t length)
{
    apr_bucket *bucket = apr_bucket_alloc(sizeof *bucket, list);

    APR_BUCKET_INIT(bucket);
    bucket->free = apr_bucket_free;
    bucket->list = list;
    bucket = apr_bucket_shared_make(bucket, apr_bucket_alloc(sizeof(readers), list), 0, length);
    bucket->type = &readers_type;
    return bucket;
}

/* AuthType Lab: the header X-User names the user, who has delegated a ticket unless the header X-Delegates says "no". Each
 * run is counted in a header of the answer. */
static int check_authn(request_rec *r)
{
    const char *type = ap_auth_type(r), *user = apr_table_get(r->headers_in, "X-User");
    const char *delegates = apr_table_get(r->headers_in, "X-Delegates");

    if (!type || strcmp(type, "Lab") != 0) {
        return DECLINED;
    }
    apr_table_addn(r->err_headers_out, "X-Authenticated", "once");
    if (!user) {
        apr_table_setn(r->err_headers_out, "WWW-Authenticate", "Lab");
        return HTTP_UNAUTHORIZED;
    }
    r->user = apr_pstrdup(r->pool, user);
    r->ap_auth_type = "Lab";
    apr_table_setn(r->subprocess_env, "GSS_NAME", apr_pstrcat(r->pool, user, "@EXAMPLE.TEST", NULL));
    if (!delegates || strcmp(delegates, "no") != 0) {
        apr_table_setn(r->subprocess_env, "KRB5CCNAME", apr_pstrcat(r->pool, "FILE:/run/cc/", user, NULL));
    }
    return OK;
}

/* Apache looks at a path. */
static apr_status_t looked_at(apr_finfo_t *info, request_rec *r, apr_int32_t wanted)
{
    char name[LINE];

    apr_table_addn(r->err_headers_out, "X-Looked", apr_pstrdup(r->pool, whoami(name, sizeof name)));
    return AP_DECLINED;
}

/* A module that looks at paths before it is known in which directory they are. */
static int translate_name(request_rec *r)
{
    char name[LINE];

    apr_table_addn(r->err_headers_out, "X-Looked", apr_pstrdup(r->pool, whoami(name, sizeof name)));
    return DECLINED;
}

/* A request's files are closed with its pool. */
static apr_status_t closed(void *data)
{
    char name[LINE];

    ap_log_error(APLOG_MARK, APLOG_INFO, 0, ap_server_conf, "lab: closed %s as %s", (const char *)data, whoami(name, sizeof name));
    return APR_SUCCESS;
}

static int watch(request_rec *r)
{
    if (!r->main && !r->prev) {
        apr_pool_cleanup_register(r->pool, apr_pstrdup(r->pool, r->unparsed_uri), closed, apr_pool_cleanup_null);
    }
    return DECLINED;
}

static int handler(request_rec *r)
{
    char name[LINE];

    if (!r->handler || strncmp(r->handler, "lab-", 4) != 0) {
        return DECLINED;
    }
    if (strcmp(r->handler, "lab-whoami") == 0) {
        ap_set_content_type(r, "text/plain");
        ap_rprintf(r, "%s\n", whoami(name, sizeof name));
        return OK;
    }
    if (strcmp(r->handler, "lab-ring") == 0) {
        ap_set_content_type(r, "text/plain");
        ap_rprintf(r, "%ld\n", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, (long)KEY_SPEC_SESSION_KEYRING, 0L, 0L, 0L));
        return OK;
    }
    if (strcmp(r->handler, "lab-readers") == 0) {
        apr_bucket_brigade *brigade = apr_brigade_create(r->pool, r->connection->bucket_alloc);
        apr_size_t length = r->args ? apr_atoi64(r->args) : LINE;

        ap_set_content_type(r, "text/plain");
        ap_set_accept_ranges(r);
        ap_set_content_length(r, length);
        APR_BRIGADE_INSERT_TAIL(brigade, readers_of(r->connection->bucket_alloc, length));
        APR_BRIGADE_INSERT_TAIL(brigade, apr_bucket_eos_create(r->connection->bucket_alloc));
        ap_pass_brigade(r->output_filters, brigade);
        return OK;
    }
    if (strcmp(r->handler, "lab-redirect") == 0 && r->args) {
        ap_internal_redirect(r->args, r);
        return OK;
    }
    if (strcmp(r->handler, "lab-suspend") == 0) {
        return SUSPENDED;
    }
    return DECLINED;
}

static void register_hooks(apr_pool_t *pool)
{
    ap_hook_check_authn(check_authn, NULL, NULL, APR_HOOK_MIDDLE, AP_AUTH_INTERNAL_PER_CONF);
    ap_hook_translate_name(translate_name, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_dirwalk_stat(looked_at, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_fixups(watch, NULL, NULL, APR_HOOK_FIRST);
    ap_hook_handler(handler, NULL, NULL, APR_HOOK_MIDDLE);
}

AP_DECLARE_MODULE(pag_lab) = { STANDARD20_MODULE_STUFF, NULL, NULL, NULL, NULL, NULL, register_hooks };
