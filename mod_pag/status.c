/* SetHandler pag-status: the PAGs of the child process that answers. */
#include "mod_pag.h"

#include <unistd.h>

#include "apr_strings.h"
#include "http_protocol.h"

APLOG_USE_MODULE(pag);

/* A time, as seconds from now or ago. */
static const char *seconds(apr_pool_t *pool, apr_time_t time)
{
    return time ? apr_psprintf(pool, "%" APR_TIME_T_FMT " s", apr_time_sec(time)) : "-";
}

int pag_status_handler(request_rec *r)
{
    apr_array_header_t *rows;
    apr_time_t now = apr_time_now();
    int plain, i;

    if (!r->handler || strcmp(r->handler, "pag-status") != 0) {
        return DECLINED;
    }
    if (r->method_number != M_GET) {
        return DECLINED;
    }
    plain = r->args && strcmp(r->args, "auto") == 0;
    ap_set_content_type(r, plain ? "text/plain; charset=utf-8" : "text/html; charset=utf-8");
    apr_table_setn(r->headers_out, "Cache-Control", "no-store");
    rows = pag_pool_rows(r->pool);
    if (plain) {
        ap_rprintf(r, "child %d pags %d max %u\n", (int)getpid(), rows->nelts, pag_settings.max);
    }
    else {
        ap_rprintf(r, "<!DOCTYPE html>\n<title>PAGs</title>\n<h1>PAGs of child process %d</h1>\n<p>%d of at most %u. Each child "
                   "process has PAGs of its own; reload for another one.</p>\n<table border=\"1\">\n<tr><th>PAG<th>identity"
                   "<th>from<th>threads inside<th>requests<th>made ago<th>used ago<th>tokens last for<th>last failure\n",
                   (int)getpid(), rows->nelts, pag_settings.max);
    }
    for (i = 0; i < rows->nelts; i++) {
        const pag_row *row = &APR_ARRAY_IDX(rows, i, pag_row);
        apr_time_t left = row->expires ? apr_time_from_sec(row->expires) - now : 0;

        ap_rprintf(r, plain ? "pag %u of %s from %s inside %u requests %lu made %s used %s lasts %s failure %s\n"
                            : "<tr><td>%u<td>%s<td>%s<td>%u<td>%lu<td>%s<td>%s<td>%s<td>%s\n",
                   row->number, ap_escape_html(r->pool, row->who), ap_escape_html(r->pool, row->source), row->inside,
                   row->requests, seconds(r->pool, row->made ? now - row->made : 0),
                   seconds(r->pool, row->used ? now - row->used : 0), seconds(r->pool, left),
                   row->why ? ap_escape_html(r->pool, row->why) : "-");
    }
    if (!plain) {
        ap_rputs("</table>\n", r);
    }
    return OK;
}
