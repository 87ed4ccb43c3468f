/* The PAGs of a child process: one for each identity, made when it is first needed, renewed before its tokens end, and ended
 * when it has not been used for a while, when another identity needs its place, and with the child. */
#include "mod_pag.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "apr_strings.h"

APLOG_USE_MODULE(pag);

/* Tokens are renewed this long before they end. */
#define EARLY apr_time_from_sec(300)
/* After an attempt to renew tokens that still last, the next one waits for this long. */
#define PATIENCE apr_time_from_sec(60)
/* After a failure, the same PAG is not tried again for this long, so that requests do not queue up for a dead KDC. */
#define PAUSE apr_time_from_sec(2)
/* A request waits for this long until others have made its PAG, or a place for it is free. */
#define LONGEST_WAIT (2 * pag_settings.timeout)

struct pag_member {
    struct pag_member *next;
    char *key, *who, *source;
    unsigned int number;
    pag *pag;              /* NULL: it could not be made, or is not made yet */
    int busy;              /* a thread makes or renews it, without the lock */
    unsigned int inside;   /* threads that are inside, or are about to enter */
    unsigned long requests;
    apr_time_t made, used;
    apr_time_t again;      /* no attempt to make or renew it before this time */
    time_t expires;        /* 0: it has no tokens, or their end is not known */
    int gone;              /* no longer in the list: the last thread to leave frees it */
    char *why;             /* the last failure; NULL: none */
};

/* Static, and never destroyed: threads may outlive the child's pool when the server is stopped. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static pag_member *members;
static unsigned int last_number;
static pag_process *process;
static const char *no_process = "the child process has not started";
static pthread_t sweeper;
static int stopping, swept;
static unsigned int using; /* threads that are inside, or call the library */

static __thread pag_member *inside;

pag_member *pag_pool_inside(void)
{
    return inside;
}

unsigned int pag_member_number(const pag_member *member)
{
    return member->number;
}

const char *pag_member_who(const pag_member *member)
{
    return member->who;
}

/* Waits for a change, until `end` at most. The lock is held. */
static int wait_until(apr_time_t end)
{
    struct timespec when = { apr_time_sec(end), apr_time_usec(end) * 1000 };

    return pthread_cond_timedwait(&changed, &lock, &when);
}

static char *copy(const char *text)
{
    char *copied = strdup(text ? text : "");

    if (!copied) {
        abort();
    }
    return copied;
}

static void say_why(pag_member *member, const char *why)
{
    free(member->why);
    member->why = why ? copy(why) : NULL;
}

static void take_out(pag_member *member)
{
    pag_member **place = &members;

    while (*place && *place != member) {
        place = &(*place)->next;
    }
    if (*place) {
        *place = member->next;
    }
    member->gone = 1;
}

/* Ends and frees a member that was taken out and that no thread is in. The lock is held, but not while the PAG ends. */
static void end(pag_member *member)
{
    using++;
    pthread_mutex_unlock(&lock);
    pag_end(member->pag);
    free(member->key);
    free(member->who);
    free(member->source);
    free(member->why);
    free(member);
    pthread_mutex_lock(&lock);
    using--;
    pthread_cond_broadcast(&changed);
}

static pag_member *find(const char *key)
{
    pag_member *member = members;

    while (member && strcmp(member->key, key) != 0) {
        member = member->next;
    }
    return member;
}

static unsigned int count(void)
{
    unsigned int number = 0;
    pag_member *member;

    for (member = members; member; member = member->next) {
        number += member->pag || member->busy;
    }
    return number;
}

/* The PAG that has not been used for the longest time, and that no thread is in. */
static pag_member *idlest(void)
{
    pag_member *member, *found = NULL;

    for (member = members; member; member = member->next) {
        if (member->pag && !member->busy && !member->inside && (!found || member->used < found->used)) {
            found = member;
        }
    }
    return found;
}

/* Ends the PAG that was not used for the longest time. The lock is held, but not while the PAG ends. */
static int end_idlest(server_rec *server, const char *reason)
{
    pag_member *member = idlest();

    if (!member) {
        return 0;
    }
    ap_log_error(APLOG_MARK, APLOG_INFO, 0, server, "PAG %u of %s is ended: %s", member->number, member->who, reason);
    take_out(member);
    end(member);
    return 1;
}

/* Ends idle PAGs, and forgets failures. */
static void *sweep(void *data)
{
    server_rec *server = data;
    apr_time_t step = pag_settings.idle / 4;

    step = step > apr_time_from_sec(30) ? apr_time_from_sec(30) : step < APR_USEC_PER_SEC / 4 ? APR_USEC_PER_SEC / 4 : step;
    pthread_mutex_lock(&lock);
    while (!stopping) {
        apr_time_t now = apr_time_now();
        pag_member *member = members, *next;

        for (; member; member = next) {
            int is_free = !member->inside && !member->busy;
            int idle = member->pag && member->used + pag_settings.idle <= now;
            int forgotten = !member->pag && member->again <= now;

            next = member->next;
            if (is_free && idle) {
                ap_log_error(APLOG_MARK, APLOG_INFO, 0, server, "PAG %u of %s is ended: it was not used for the time of PagIdle",
                             member->number, member->who);
            }
            if (is_free && (idle || forgotten)) {
                take_out(member);
                /* Without the lock, others may change the list. */
                end(member);
                next = members;
            }
        }
        wait_until(apr_time_now() + step);
    }
    pthread_mutex_unlock(&lock);
    return NULL;
}

/* Ends all PAGs with the child. It may run in a signal handler (prefork), so it waits for no lock. mpm_event does not wait for
 * its threads when the server is stopped, so one may still be inside. What is left here ends with the process. */
static apr_status_t stop(void *data)
{
    int is_used;

    if (pthread_mutex_trylock(&lock) != 0) {
        return APR_SUCCESS;
    }
    stopping = 1;
    is_used = using > 0;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    if (swept) {
        pthread_join(sweeper, NULL);
    }
    /* Since `stopping` is set, no more threads have come. */
    if (!is_used) {
        pag_process_close(process);
        process = NULL;
        no_process = "the child process ends";
    }
    return APR_SUCCESS;
}

void pag_pool_start(apr_pool_t *child, server_rec *server)
{
    int error = pag_process_open(&process, 0);
    sigset_t all, before;

    if (error) {
        no_process = apr_pstrdup(child, pag_last_error());
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server, "this child process has no PAGs, and answers with 503: %s", no_process);
        return;
    }
    /* The threads of this child are born where its first one is now: they have nothing of the login that started Apache. */
    if (pag_leave(process) != PAG_OK) {
        no_process = apr_pstrdup(child, pag_last_error());
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server, "this child process has no PAGs, and answers with 503: %s", no_process);
        pag_process_close(process);
        process = NULL;
        return;
    }
    apr_pool_cleanup_register(child, NULL, stop, apr_pool_cleanup_null);
    /* Signals are for the child's own threads. In this one, prefork's handler would end the child beside a request. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    swept = pthread_create(&sweeper, NULL, sweep, server) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!swept) {
        ap_log_error(APLOG_MARK, APLOG_WARNING, 0, server, "PagIdle has no effect in this child process: it has no thread for it");
    }
}

/* Makes a PAG, or gets new tokens into it. The member is busy, and the lock is not held. */
static int make(pag_member *member, const pag_wish *wish, pag **made, time_t *expires)
{
    int error;

    *made = member->pag;
    if (member->pag) {
        error = pag_renew(member->pag, &wish->seed);
    }
    else {
        error = pag_create(process, &wish->seed, made);
    }
    *expires = 0;
    if (*made) {
        pag_expires(*made, expires);
    }
    return error;
}

/* What the administrator or the user can do about a failure. */
static const char *remedy(int error, const pag_wish *wish)
{
    switch (error) {
    case PAG_EQUOTA:
        return "; raise kernel.keys.maxkeys and kernel.keys.maxbytes, or lower PagMax";
    case PAG_ETIMEOUT:
        return "; look whether the KDC and the cell's servers answer this host";
    case PAG_ESEED:
        if (wish->seed.keytab) {
            return "; look whether the KDC answers, and whether 'kinit -k -t' with this keytab and principal, and then aklog, "
                   "work by hand as the server's user";
        }
        return "; look whether the ticket is good, and whether aklog makes a token from it by hand";
    default:
        return "";
    }
}

/* A failure to make or renew a PAG is noted for the requests that wait, and for those of the next moment. */
static int failed(request_rec *r, pag_member *member, const pag_wish *wish, int error, const char *why)
{
    say_why(member, why);
    member->again = apr_time_now() + PAUSE;
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "no PAG for %s (%s), so the answer is 503: %s%s", member->who, member->source,
                  why, remedy(error, wish));
    return HTTP_SERVICE_UNAVAILABLE;
}

static int refuse(request_rec *r, const pag_wish *wish, const char *why)
{
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "no PAG for %s (%s), so the answer is 503: %s", wish->who, wish->source, why);
    return HTTP_SERVICE_UNAVAILABLE;
}

/* A new member, with a place of its own. NULL: all places are taken, and one may be free after a wait. */
static pag_member *add(request_rec *r, const pag_wish *wish)
{
    pag_member *member;

    while (count() >= pag_settings.max) {
        if (!end_idlest(r->server, "another identity needs its place (PagMax)")) {
            return NULL;
        }
        if ((member = find(wish->key)) != NULL) {
            return member;
        }
    }
    member = calloc(1, sizeof *member);
    if (!member) {
        abort();
    }
    member->key = copy(wish->key);
    member->who = copy(wish->who);
    member->source = copy(wish->source);
    member->number = ++last_number;
    member->next = members;
    members = member;
    return member;
}

/* Makes or renews a member's PAG. The lock is held, but not meanwhile. */
static int bring(request_rec *r, pag_member *member, const pag_wish *wish)
{
    int fresh = !member->pag, error;
    time_t expires;
    pag *made;

    member->busy = 1;
    using++;
    do {
        pthread_mutex_unlock(&lock);
        error = make(member, wish, &made, &expires);
        pthread_mutex_lock(&lock);
        /* PAGs of others that are not in use take room in the quota of the server's uid. */
    } while (error == PAG_EQUOTA && end_idlest(r->server, "the key quota is full"));
    member->busy = 0;
    using--;
    pthread_cond_broadcast(&changed);
    member->pag = made;
    member->expires = expires;
    member->again = apr_time_now() + PATIENCE;
    if (error == PAG_OK) {
        say_why(member, NULL);
        member->made = apr_time_now();
        ap_log_rerror(APLOG_MARK, APLOG_INFO, 0, r, "PAG %u of %s is %s from %s", member->number, member->who,
                      fresh ? "made" : "renewed", member->source);
    }
    return error;
}

/* Has the PAG of a wish ready, with one more thread inside. The lock is held. */
static int get(request_rec *r, const pag_wish *wish, pag_member **result)
{
    apr_time_t end = apr_time_now() + LONGEST_WAIT;

    for (;;) {
        pag_member *member = find(wish->key);
        apr_time_t now = apr_time_now();
        int good, due, error;

        if (stopping) {
            return refuse(r, wish, "the child process ends");
        }
        if (!member && !(member = add(r, wish))) {
            if (wait_until(end)) {
                return refuse(r, wish, apr_psprintf(r->pool, "all %u PAGs of this child process are in use; raise PagMax",
                                                    pag_settings.max));
            }
            continue;
        }
        good = member->pag && (!member->expires || apr_time_from_sec(member->expires) > now);
        due = good && member->expires && apr_time_from_sec(member->expires) - EARLY <= now && member->again <= now;
        if (!good && member->busy) {
            if (wait_until(end)) {
                return refuse(r, wish, "another request has waited for it for too long; see the lines before");
            }
            continue;
        }
        if (!good || due) {
            if (!good && member->why && member->again > now) {
                return refuse(r, wish, apr_pstrdup(r->pool, member->why));
            }
            if (!member->busy) {
                error = bring(r, member, wish);
                good = member->pag && (!member->expires || apr_time_from_sec(member->expires) > apr_time_now());
                if (!good) {
                    return failed(r, member, wish, error, error ? pag_last_error() : "the ticket has ended; get a new one");
                }
                if (error) {
                    say_why(member, pag_last_error());
                    ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r, "PAG %u of %s is not renewed, and lasts until its tokens end: "
                                  "%s%s", member->number, member->who, member->why, remedy(error, wish));
                }
            }
        }
        member->inside++;
        using++;
        member->requests++;
        member->used = apr_time_now();
        *result = member;
        return HTTP_OK;
    }
}

int pag_pool_enter(request_rec *r, const pag_wish *wish)
{
    pag_member *member;
    int status, error, attempt;

    for (attempt = 0; attempt < 2; attempt++) {
        if (!process) {
            return refuse(r, wish, no_process);
        }
        pthread_mutex_lock(&lock);
        status = get(r, wish, &member);
        pthread_mutex_unlock(&lock);
        if (status != HTTP_OK) {
            return status;
        }
        inside = member;
        error = pag_enter(member->pag);
        if (error == PAG_OK) {
            return HTTP_OK;
        }
        /* The library has taken the thread out of all PAGs. Other processes of the server's uid can end a PAG; then it is made
         * anew. */
        ap_log_rerror(APLOG_MARK, APLOG_WARNING, 0, r, "PAG %u of %s is given up: %s", member->number, member->who, pag_last_error());
        pthread_mutex_lock(&lock);
        take_out(member);
        pthread_mutex_unlock(&lock);
        pag_pool_leave(r->server);
    }
    ap_log_rerror(APLOG_MARK, APLOG_ERR, 0, r, "no PAG for %s (%s), so the answer is 503: it could not be entered twice; see the "
                  "lines before", wish->who, wish->source);
    return HTTP_SERVICE_UNAVAILABLE;
}

void pag_pool_leave(server_rec *server)
{
    pag_member *member = inside;

    if (!member) {
        return;
    }
    if (pag_leave(process) != PAG_OK) {
        ap_log_error(APLOG_MARK, APLOG_CRIT, 0, server, "a thread has left PAG %u of %s and is in no PAG: %s", member->number,
                     member->who, pag_last_error());
    }
    inside = NULL;
    pthread_mutex_lock(&lock);
    member->inside--;
    using--;
    member->used = apr_time_now();
    pthread_cond_broadcast(&changed);
    if (member->gone && !member->inside) {
        end(member);
    }
    pthread_mutex_unlock(&lock);
}

apr_array_header_t *pag_pool_rows(apr_pool_t *pool)
{
    apr_array_header_t *rows = apr_array_make(pool, 16, sizeof(pag_row));
    pag_member *member;

    pthread_mutex_lock(&lock);
    for (member = members; member; member = member->next) {
        pag_row *row = apr_array_push(rows);

        row->who = apr_pstrdup(pool, member->who);
        row->source = apr_pstrdup(pool, member->source);
        row->why = member->why ? apr_pstrdup(pool, member->why) : NULL;
        row->number = member->number;
        row->inside = member->inside;
        row->requests = member->requests;
        row->made = member->pag ? member->made : 0;
        row->used = member->used;
        row->expires = member->expires;
    }
    pthread_mutex_unlock(&lock);
    return rows;
}
