/*
 * mod_pag - serves each request in the AFS authentication group (PAG) of its user
 *
 *   config.c   the directives
 *   pool.c     the PAGs of a child process: made, renewed, ended
 *   identity.c which PAG a request is served in
 *   mod_pag.c  the hooks: where a thread enters a PAG, and where it leaves
 *   status.c   SetHandler pag-status
 */
#ifndef MOD_PAG_H
#define MOD_PAG_H

#include "httpd.h"
#include "http_config.h"
#include "http_log.h"

#include "pag.h"

extern module AP_MODULE_DECLARE_DATA pag_module __attribute__((visibility("default")));

/* What a location says. Directives of a location that says nothing come from the one around it. */
typedef struct {
    int enable;                /* PagEnable; -1: not said */
    const char *variable;      /* PagCcache: the variable with the ccache's name; NULL: not said */
    const char *keytab;        /* PagKeytab; NULL: none, or not said */
    const char *principal;
    int default_said;          /* PagDefault was given */
    const char *default_keytab;
    const char *default_principal;
    const char *const *cells;  /* PagCells, with a NULL at the end; NULL: those of pag.conf */
} pag_location;

/* What counts for the whole server. */
typedef struct {
    unsigned int max;   /* PagMax: PAGs of one child process */
    apr_time_t idle;    /* PagIdle: a PAG that is not used for this long is ended */
    apr_time_t timeout; /* PagTimeout: making or renewing a PAG is given up after this long */
    int used;           /* a location has PagEnable On */
} pag_server;

extern pag_server pag_settings;
extern const command_rec pag_directives[];
void *pag_create_location(apr_pool_t *pool, char *path);
void *pag_merge_locations(apr_pool_t *pool, void *outer, void *inner);
void pag_reset_settings(void);

/* One PAG of this child process. Only pool.c looks inside. */
typedef struct pag_member pag_member;

/* What a PAG is made from. */
typedef struct {
    const char *key;      /* tells the PAGs of a child apart */
    const char *who;      /* the identity, for people */
    const char *source;   /* ccache or keytab, for people */
    pag_seed seed;
} pag_wish;

/* One line of the status page. */
typedef struct {
    const char *who, *source, *why;
    unsigned int number, inside;
    unsigned long requests;
    apr_time_t made, used;
    time_t expires;
} pag_row;

void pag_pool_start(apr_pool_t *child, server_rec *server);
/* Puts the calling thread into the PAG that `wish` asks for: HTTP_OK, or the status to answer with after the reason has been
 * logged. Whatever comes of it, the thread is no longer where it was before. */
int pag_pool_enter(request_rec *r, const pag_wish *wish);
/* Takes the calling thread out of its PAG, if it is in one. */
void pag_pool_leave(server_rec *server);
/* The PAG that the calling thread is in, or NULL; its number and identity. */
pag_member *pag_pool_inside(void);
unsigned int pag_member_number(const pag_member *member);
const char *pag_member_who(const pag_member *member);
apr_array_header_t *pag_pool_rows(apr_pool_t *pool);

/* Which identity a request has. */
typedef enum {
    PAG_OFF,     /* the location has no PagEnable */
    PAG_NONE,    /* no identity: the request is served in no PAG */
    PAG_DEFAULT, /* that of PagDefault */
    PAG_KEYTAB,  /* that of PagKeytab */
    PAG_USER     /* that of the user, by a delegated ticket */
} pag_kind;

/* What is known of a request. */
typedef struct {
    pag_kind kind;
    const ap_conf_vector_t *decided_by; /* the configuration that decided; NULL: nothing is decided yet */
    pag_member *member;                 /* the PAG; NULL: none */
    const char *key;
    int authenticating;                 /* the authentication hooks run at this moment, for us */
    int authenticated;                  /* they have run */
    const char *auth_type;              /* AuthType at that time */
    char *user;                         /* what they said */
    char *ap_auth_type;
} pag_request;

/* The state of a request; a sub-request has that of the request that it belongs to. */
pag_request *pag_request_of(request_rec *r);
/* Decides which PAG a request is served in, and enters it: DECLINED when the request may go on, or a status. The
 * configuration of the request's location must be in r->per_dir_config. */
int pag_identity_decide(request_rec *r);
/* The answer that the authentication hooks gave to us, when Apache asks for itself. */
int pag_identity_again(request_rec *r);
/* Refuses a request that turned out to have another identity than the one that was decided. */
int pag_identity_verify(request_rec *r);

int pag_status_handler(request_rec *r);

#endif
