/*
 * pag.h - several AFS authentication groups (PAGs) in one process
 *
 * A server opens a pag_process once, creates a PAG for each identity that it serves, and enters that PAG
 * around the work of a request:
 *
 *     struct pag_seed seed = PAG_SEED_INIT;
 *     seed.ccache = "FILE:/run/server/alice";
 *     if (pag_create(process, &seed, &alice) != PAG_OK)
 *         refuse(pag_last_error());
 *     ...
 *     if (pag_enter(alice) != PAG_OK)
 *         refuse(pag_last_error());
 *     serve(request);                 open, read, close: all in here
 *     pag_leave(process);
 *
 * On Linux a PAG is a session keyring, and a session keyring belongs to a thread. pag_enter puts the calling
 * thread into a PAG, and no other thread. It is one system call, and a look at its result.
 *
 * Needed: no right, no configuration, no daemon. A program for AFS tokens (aklog, aklog-kafs) is run if
 * there is a ticket to make tokens from.
 *
 * Results: each call that returns int returns PAG_OK, which is 0, or one of the codes below. No call changes
 * errno, prints, writes to the journal, or ends the process, with one exception: see pag_enter.
 *
 * Threads: all calls may be made by all threads at once, with the same handles. Only pag_enter, pag_leave and
 * pag_strerror may be called in a signal handler.
 *
 * Handles: a pag_process or pag is a name, not an address: never look into it. A handle that has been closed
 * or ended is refused by each call (PAG_ENDED), at any time, also when other PAGs have been created since.
 *
 * Fork: a child stays in the PAG that the forking thread was in, whatever the parent does later. In the
 * child, and in its children, each call with a handle of the parent returns PAG_EFORKED and does nothing; a
 * child that wants PAGs of its own calls pag_process_open.
 *
 * Before you write a server, read the rules in libpag(3). The first: close the files of a request before you
 * leave its PAG.
 */
#ifndef PAG_H
#define PAG_H

#include <stddef.h>
#include <time.h>

/* The version of this interface. It grows with each addition; nothing is taken away under this soname. */
#define PAG_API_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif

/* The PAGs of this process. */
typedef struct pag_process pag_process;

/* One PAG. */
typedef struct pag pag;

/* Results. The numbers stay. pag_strerror has a text for each, pag_last_error what happened in words. */
enum {
    PAG_OK = 0,       /* done */
    PAG_EINVAL = 1,   /* an argument is NULL, or has a wrong size, flag or value */
    PAG_EFORKED = 2,  /* the handle belongs to the parent process */
    PAG_EOPEN = 3,    /* the process has been opened already */
    PAG_ENDED = 4,    /* the PAG has ended, or the process was closed */
    PAG_EQUOTA = 5,   /* the uid has no room for more keys: kernel.keys.maxkeys, kernel.keys.maxbytes */
    PAG_ETIMEOUT = 6, /* it was not done within seed.timeout_ms */
    PAG_ESEED = 7,    /* no token could be made from this ccache or keytab */
    PAG_ENOPAG = 8,   /* an AFS client of this host refused to make a PAG */
    PAG_ESYSTEM = 9   /* a system call failed: pag_last_error says which, and why */
};

/*
 * What a PAG gets its tokens from. Start from PAG_SEED_INIT, and set what you need. All strings are copied:
 * they may go after the call.
 *
 * With a ccache or a keytab, tokens are made for each cell, and PAG_ESEED is returned unless there is a token
 * in the end. With neither, the PAG is made without tokens, and a program that is run in it may get some.
 */
struct pag_seed {
    /* sizeof (struct pag_seed). Later versions add fields at the end; those that a caller does not know are
     * taken as 0. */
    size_t size;

    /* Name of a ccache as in KRB5CCNAME, such as "FILE:/run/server/alice"; or NULL. It is read under the
     * process's own uid and gid, and it is not changed. */
    const char *ccache;

    /* Path of a keytab; or NULL. A ticket for `principal` is got from it, kept in a private directory below
     * TMPDIR or /tmp while the tokens are made, and removed. Either ccache or keytab, not both. */
    const char *keytab;

    /* With a keytab: the principal, such as "HTTP/www.example.test@EXAMPLE.TEST". Else NULL. */
    const char *principal;

    /* Names of the cells, with a NULL behind the last one. NULL: those of pag.conf(5), or else the host's own
     * cell. */
    const char *const *cells;

    /* Milliseconds until pag_create or pag_renew gives up; 0: 5000. */
    unsigned int timeout_ms;
};
typedef struct pag_seed pag_seed;

/* A seed without tokens, for five seconds: { sizeof (struct pag_seed), NULL, NULL, NULL, NULL, 0 }. */
#define PAG_SEED_INIT { sizeof(struct pag_seed), NULL, NULL, NULL, NULL, 0 }

/*
 * Makes this process one that may have PAGs. Once for each process: after a server's fork, before its
 * requests.
 *
 * `flags`: 0.
 * Thread: any; the process keyring, where the PAGs are held, belongs to all threads. The calling thread stays
 *     where it is.
 * Effects: the process may not be dumped or traced by others of its uid (PR_SET_DUMPABLE is 0) from now on,
 *     since it has the names of its PAGs in memory; and it has one thread more, which sleeps with all
 *     signals blocked, since the kernel lets a child replace the session keyring of a process that has one
 *     thread.
 * Rights: none. A process with several uids or gids at once (setuid) is refused: set them all before.
 * Errors: PAG_EINVAL, PAG_EOPEN, PAG_EQUOTA, PAG_ESYSTEM. On an error, *process is NULL.
 */
int pag_process_open(pag_process **process, unsigned int flags);

/*
 * Ends all PAGs of the process, as pag_end does, and forgets the handle. Leave with all threads before: a
 * thread that is still inside stays there, without tokens. A pag_create that is under way in another thread
 * returns PAG_ENDED. The process may be opened again.
 *
 * `process`: NULL is allowed, and nothing is done.
 * Thread: any.
 */
void pag_process_close(pag_process *process);

/*
 * Creates a PAG, and fills it with tokens from the seed. The calling thread does not enter it. A process may
 * have 65,535 PAGs.
 *
 * `seed`: NULL is a PAG without tokens.
 * Thread: any. It takes as long as the KDC and the cell's servers take, at most seed->timeout_ms. The work is
 *     done by children of this process, which are collected here and send no SIGCHLD.
 * Rights: none. Without CAP_SYS_ADMIN, OpenAFS makes one PAG a second on average, and a call waits for that
 *     within its time.
 * Errors: PAG_EINVAL, PAG_EFORKED, PAG_ENDED (the process was closed), PAG_EQUOTA, PAG_ETIMEOUT, PAG_ESEED,
 *     PAG_ENOPAG, PAG_ESYSTEM. On an error there is no PAG, nothing of it is left, and *result is NULL.
 */
int pag_create(pag_process *process, const struct pag_seed *seed, pag **result);

/*
 * Puts the calling thread into a PAG, until it enters another or leaves. Who is inside one PAG may enter
 * another; entering the same once more is allowed. Entries are not counted: one pag_leave is enough.
 *
 * On an error THE THREAD IS IN NO PAG, wherever it was before: it has no tokens. If the kernel refuses even
 * that, the process is ended by abort(), since it would go on under another's identity.
 *
 * Thread: the calling one alone. Do not start threads while inside: they would be born in the PAG. A child
 *     process stays in it for good.
 * Signals: may be called in a signal handler. It allocates no memory, takes no lock and opens no file.
 * Errors: PAG_EINVAL, PAG_EFORKED (then the thread is where it was: in a forked child nothing is done),
 *     PAG_ENDED, PAG_EQUOTA, PAG_ESYSTEM.
 */
int pag_enter(pag *pag);

/*
 * Takes the calling thread back to the default PAG of the process, or out of all PAGs. Leaving twice, or
 * without having entered, does the same.
 *
 * On an error the thread is in no PAG, as with pag_enter.
 *
 * Thread: the calling one alone.
 * Signals: as pag_enter.
 * Errors: PAG_EINVAL, PAG_EFORKED, PAG_ENDED (the default PAG has ended, or the process was closed),
 *     PAG_EQUOTA, PAG_ESYSTEM.
 */
int pag_leave(pag_process *process);

/*
 * Chooses the PAG to which threads return when they leave. No thread is moved: the calling thread, too, goes
 * there with its next pag_leave.
 *
 * `pag`: NULL is none, as it is at first.
 * Thread: any.
 * Errors: PAG_EINVAL, PAG_EFORKED, PAG_ENDED. On an error the default stays what it was.
 */
int pag_set_default(pag_process *process, pag *pag);

/*
 * Gets new tokens into a PAG, from a newer ccache or the same keytab, for all who are in it. Threads that are
 * inside stay, and their work goes on.
 *
 * `seed`: not NULL, and with a ccache or a keytab.
 * Thread: any, inside or outside. It takes as long as pag_create.
 * Errors: PAG_EINVAL, PAG_EFORKED, PAG_ENDED, PAG_EQUOTA, PAG_ETIMEOUT, PAG_ESEED, PAG_ESYSTEM. On an error
 *     the PAG keeps the tokens that it had, as long as they last.
 */
int pag_renew(pag *pag, const struct pag_seed *seed);

/*
 * Tells when the first of a PAG's tokens ends, as it was when they were made: *when is that time, or 0 if it
 * is unknown or there is no token.
 *
 * Thread: any, inside or outside. No server is asked, and no file is read.
 * Errors: PAG_EINVAL, PAG_EFORKED, PAG_ENDED. On an error, *when is 0.
 */
int pag_expires(pag *pag, time_t *when);

/*
 * Ends a PAG, for all who hold it: its tokens are gone, also for threads that are inside at this moment, for
 * children, and for open io_uring credentials. Threads inside stay where they are, in a ring without tokens:
 * what they do next in AFS is done without identity, and pag_leave takes them out as always. Files that kAFS
 * has opened before may go on with the old tokens; close them.
 *
 * The handle is refused from now on. Another thread that is in the middle of pag_enter with it is waited
 * for, so it is either inside the ended PAG or refused.
 *
 * `pag`: NULL is allowed, and nothing is done.
 * Thread: any, inside or outside.
 */
void pag_end(pag *pag);

/* The text of a code, such as "the PAG has ended". Never NULL, static, in English, without a newline. */
const char *pag_strerror(int code);

/*
 * The last failure of a call of this thread, in words: object, operation, cause, and what to do. Never NULL;
 * "" if no call of this thread has failed. It stays until this thread's next failure. It holds no secret.
 */
const char *pag_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
