/* The directives. */
#include "mod_pag.h"

#include "apr_strings.h"
#include "http_core.h"

APLOG_USE_MODULE(pag);

pag_server pag_settings;

void pag_reset_settings(void)
{
    pag_settings.max = 16;
    pag_settings.idle = apr_time_from_sec(300);
    pag_settings.timeout = apr_time_from_sec(5);
    pag_settings.used = 0;
}

void *pag_create_location(apr_pool_t *pool, char *path)
{
    pag_location *location = apr_pcalloc(pool, sizeof *location);
    location->enable = -1;
    return location;
}

void *pag_merge_locations(apr_pool_t *pool, void *outer, void *inner)
{
    const pag_location *around = outer, *own = inner;
    pag_location *merged = apr_pmemdup(pool, around, sizeof *merged);

    if (own->enable != -1) {
        merged->enable = own->enable;
    }
    /* PagCcache and PagKeytab take each other's place. */
    if (own->variable || own->keytab) {
        merged->variable = own->variable;
        merged->keytab = own->keytab;
        merged->principal = own->principal;
    }
    if (own->default_said) {
        merged->default_said = 1;
        merged->default_keytab = own->default_keytab;
        merged->default_principal = own->default_principal;
    }
    if (own->cells) {
        merged->cells = own->cells;
    }
    return merged;
}

/* The identity of a request is needed before Apache has looked at a directory, so no directory can say it. */
static const char *location_only(cmd_parms *cmd)
{
    if (ap_check_cmd_context(cmd, NOT_IN_DIRECTORY | NOT_IN_FILES | NOT_IN_HTACCESS)) {
        return apr_psprintf(cmd->pool, "%s belongs into a <Location>, a <VirtualHost> or the server: in a <Directory> "
                            "it would come too late, since the PAG is entered before Apache looks at directories",
                            cmd->cmd->name);
    }
    return NULL;
}

static const char *keytab_path(cmd_parms *cmd, const char *file, const char **path)
{
    *path = ap_server_root_relative(cmd->pool, file);
    return *path ? NULL : apr_psprintf(cmd->pool, "%s: '%s' is no path", cmd->cmd->name, file);
}

static const char *set_enable(cmd_parms *cmd, void *config, int on)
{
    pag_location *location = config;
    const char *error = location_only(cmd);

    if (error) {
        return error;
    }
    location->enable = on;
    if (on) {
        pag_settings.used = 1;
    }
    return NULL;
}

static const char *set_ccache(cmd_parms *cmd, void *config, const char *word)
{
    pag_location *location = config;
    const char *error = location_only(cmd);

    if (error) {
        return error;
    }
    if (strcmp(word, "env") == 0) {
        location->variable = "KRB5CCNAME";
    }
    else if (strncmp(word, "env:", 4) == 0 && word[4]) {
        location->variable = word + 4;
    }
    else {
        return "PagCcache is 'env', or 'env:NAME' with the name that GssapiDelegCcacheEnvVar has";
    }
    location->keytab = location->principal = NULL;
    return NULL;
}

static const char *set_keytab(cmd_parms *cmd, void *config, const char *file, const char *principal)
{
    pag_location *location = config;
    const char *error = location_only(cmd);

    location->variable = NULL;
    location->principal = principal;
    return error ? error : keytab_path(cmd, file, &location->keytab);
}

static const char *set_default(cmd_parms *cmd, void *config, const char *file, const char *principal)
{
    pag_location *location = config;
    const char *error = location_only(cmd);

    if (error) {
        return error;
    }
    location->default_said = 1;
    location->default_keytab = location->default_principal = NULL;
    if (!principal) {
        return strcmp(file, "none") == 0 ? NULL : "PagDefault is 'none', or a keytab and a principal";
    }
    location->default_principal = principal;
    return keytab_path(cmd, file, &location->default_keytab);
}

static const char *set_cells(cmd_parms *cmd, void *config, int argc, char *const argv[])
{
    pag_location *location = config;
    const char *error = location_only(cmd);
    const char **cells = apr_pcalloc(cmd->pool, (argc + 1) * sizeof *cells);
    int i;

    for (i = 0; i < argc; i++) {
        cells[i] = apr_pstrdup(cmd->pool, argv[i]);
    }
    location->cells = cells;
    return error ? error : argc > 0 ? NULL : "PagCells needs the name of a cell";
}

static const char *number(cmd_parms *cmd, const char *word, apr_int64_t least, apr_int64_t *value)
{
    char *end;

    *value = apr_strtoi64(word, &end, 10);
    if (*word == '\0' || *end != '\0' || *value < least || *value > 1000000) {
        return apr_psprintf(cmd->pool, "%s: '%s' is no number from %" APR_INT64_T_FMT " to 1000000", cmd->cmd->name,
                            word, least);
    }
    return ap_check_cmd_context(cmd, GLOBAL_ONLY);
}

static const char *set_idle(cmd_parms *cmd, void *config, const char *word)
{
    apr_int64_t value;
    const char *error = number(cmd, word, 1, &value);

    pag_settings.idle = apr_time_from_sec(value);
    return error;
}

static const char *set_timeout(cmd_parms *cmd, void *config, const char *word)
{
    apr_int64_t value;
    const char *error = number(cmd, word, 1, &value);

    pag_settings.timeout = apr_time_from_sec(value);
    return error;
}

static const char *set_max(cmd_parms *cmd, void *config, const char *word)
{
    apr_int64_t value;
    const char *error = number(cmd, word, 1, &value);

    pag_settings.max = (unsigned int)value;
    return error;
}

const command_rec pag_directives[] = {
    AP_INIT_FLAG("PagEnable", set_enable, NULL, RSRC_CONF | ACCESS_CONF, "On: serve requests in PAGs"),
    AP_INIT_TAKE1("PagCcache", set_ccache, NULL, RSRC_CONF | ACCESS_CONF,
                  "env: the user's PAG, by the ccache that mod_auth_gssapi names in KRB5CCNAME"),
    AP_INIT_TAKE2("PagKeytab", set_keytab, NULL, RSRC_CONF | ACCESS_CONF,
                  "a keytab and a principal: all requests in this principal's PAG"),
    AP_INIT_TAKE12("PagDefault", set_default, NULL, RSRC_CONF | ACCESS_CONF,
                   "none, or a keytab and a principal: the PAG of requests that need no authentication"),
    AP_INIT_TAKE_ARGV("PagCells", set_cells, NULL, RSRC_CONF | ACCESS_CONF, "the cells to get tokens for"),
    AP_INIT_TAKE1("PagIdle", set_idle, NULL, RSRC_CONF, "seconds after which an unused PAG is ended"),
    AP_INIT_TAKE1("PagTimeout", set_timeout, NULL, RSRC_CONF, "seconds after which the attempt to get tokens is given up"),
    AP_INIT_TAKE1("PagMax", set_max, NULL, RSRC_CONF, "how many PAGs a child process may have"),
    { NULL }
};
