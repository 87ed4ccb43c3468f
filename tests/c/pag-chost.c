/*
 * A process with several PAGs, made by the C interface. It does what a test writes to it, line by line, and answers each
 * line with one: a code of pag.h, and words. The words are those of pag_last_error() after a failure.
 *
 *     open                              close
 *     create NAME [KEY=VALUE]...        renew NAME [KEY=VALUE]...     keys: ccache keytab principal cells ms size
 *     enter NAME   leave                NAME "-" is a NULL handle, "stray" an address that is no handle
 *     default NAME                      end NAME                      expires NAME
 *     token                             what this thread's PAG has for the cell example.test, or "none"
 *     ring                              the serial of this thread's session keyring
 *     run COMMAND                       a shell command's output in one line, as child of this thread
 *     errno COMMAND...                  the same; the words are errno afterwards, which was 42 before
 *     signal NAME                       pag_enter in a signal handler of this thread
 *     last                              pag_last_error(), twice: "same" or "moved" stands first
 *     code NUMBER                       pag_strerror()
 *     alternate COUNT NAME NAME         two threads enter both PAGs in opposite phase; words: how often one had a wrong token
 *     thread T COMMAND...               in the thread T, which is started outside all PAGs by its first command
 *     start T COMMAND...   wait T       the same, and the answer later
 *     fork C   child C COMMAND...       in a child process, which was forked by the calling thread
 */
#define _GNU_SOURCE
#include <pag.h>

#include <errno.h>
#include <linux/keyctl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE 4096

struct name {
    char name[32];
    pag *pag;
};

static pag_process *process;
static struct name names[20000];
static size_t count;
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;

static pag **place_of(const char *name)
{
    size_t i;
    pag **place;

    pthread_mutex_lock(&names_lock);
    for (i = 0; i < count && strcmp(names[i].name, name) != 0; i++)
        ;
    if (i == count && count < sizeof names / sizeof *names) {
        snprintf(names[count++].name, sizeof names[i].name, "%s", name);
        if (strcmp(name, "stray") == 0)
            names[i].pag = (pag *)(void *)&process;
    }
    place = &names[i].pag;
    pthread_mutex_unlock(&names_lock);
    return place;
}

static pag *named(const char *name)
{
    return strcmp(name, "-") == 0 ? NULL : *place_of(name);
}

/* The payload of this thread's token, or "none". */
static const char *token(char *text, size_t size)
{
    long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", "afs@example.test", 0);
    long length = key < 0 ? -1 : syscall(SYS_keyctl, KEYCTL_READ, key, text, size - 1);

    if (length < 0 || (size_t)length >= size)
        return "none";
    text[length] = 0;
    return text;
}

/* A seed from words KEY=VALUE. Splits the words where they are. */
static void read_seed(struct pag_seed *seed, const char **cells, char *words)
{
    char *word, *rest = NULL, *cell, *more = NULL;
    size_t number = 0;

    for (word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *value = strchr(word, '=');
        if (!value)
            continue;
        *value++ = 0;
        if (strcmp(word, "ccache") == 0)
            seed->ccache = value;
        else if (strcmp(word, "keytab") == 0)
            seed->keytab = value;
        else if (strcmp(word, "principal") == 0)
            seed->principal = value;
        else if (strcmp(word, "ms") == 0)
            seed->timeout_ms = (unsigned int)atoi(value);
        else if (strcmp(word, "size") == 0)
            seed->size = (size_t)atoi(value);
        else if (strcmp(word, "cells") == 0) {
            for (cell = strtok_r(value, ",", &more); cell && number < 8; cell = strtok_r(NULL, ",", &more))
                cells[number++] = cell;
            cells[number] = NULL;
            seed->cells = cells;
        }
    }
}

/* The two threads of "alternate". */
struct phase {
    pthread_barrier_t *barrier;
    pag *pags[2];
    char tokens[2][256];
    int first, count, wrong;
};

static void *alternate(void *argument)
{
    struct phase *phase = argument;
    char text[256];
    int i, turn;

    for (i = 0; i < phase->count; i++) {
        turn = (phase->first + i) % 2;
        phase->wrong += pag_enter(phase->pags[turn]) != PAG_OK;
        pthread_barrier_wait(phase->barrier);
        phase->wrong += strcmp(token(text, sizeof text), phase->tokens[turn]) != 0;
        pthread_barrier_wait(phase->barrier);
    }
    phase->wrong += pag_leave(process) != PAG_OK;
    phase->wrong += strcmp(token(text, sizeof text), "none") != 0;
    return NULL;
}

static int both(int times, pag *one, pag *other)
{
    pthread_barrier_t barrier;
    pthread_t thread;
    struct phase phases[2];
    int i;

    memset(phases, 0, sizeof phases);
    pthread_barrier_init(&barrier, NULL, 2);
    for (i = 0; i < 2; i++) {
        phases[i].barrier = &barrier;
        phases[i].pags[0] = one;
        phases[i].pags[1] = other;
        phases[i].first = i;
        phases[i].count = times;
    }
    for (i = 0; i < 2; i++) {
        char text[256];
        pag_enter(i ? other : one);
        snprintf(phases[0].tokens[i], sizeof phases[0].tokens[i], "%s", token(text, sizeof text));
        snprintf(phases[1].tokens[i], sizeof phases[1].tokens[i], "%s", phases[0].tokens[i]);
    }
    pag_leave(process);
    if (strcmp(phases[0].tokens[0], phases[0].tokens[1]) == 0)
        return -1;                                              /* they have the same token: nothing is shown */
    pthread_create(&thread, NULL, alternate, &phases[1]);
    alternate(&phases[0]);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&barrier);
    return phases[0].wrong + phases[1].wrong;
}

static pag *for_handler;
static volatile sig_atomic_t handler_code;

static void handler(int signal)
{
    (void)signal;
    handler_code = pag_enter(for_handler);
}

static void serve(FILE *in, FILE *out);
static void dispatch(char *line, char *answer);

/* A thread of the program, which does one command at a time. */
struct worker {
    char name[32];
    int ends[2];
    FILE *to, *from;
};

static struct worker workers[64];
static size_t worker_count;
static pthread_mutex_t workers_lock = PTHREAD_MUTEX_INITIALIZER;

static void *work(void *argument)
{
    struct worker *worker = argument;
    FILE *in = fdopen(worker->ends[1], "r"), *out = fdopen(dup(worker->ends[1]), "w");

    serve(in, out);
    return NULL;
}

/* The thread or child of this name, which is made if it is new. */
static struct worker *worker_of(const char *name, int is_child)
{
    struct worker *worker;
    pthread_t thread;
    size_t i;

    pthread_mutex_lock(&workers_lock);
    for (i = 0; i < worker_count && strcmp(workers[i].name, name) != 0; i++)
        ;
    worker = &workers[i];
    if (i == worker_count && i < sizeof workers / sizeof *workers) {
        worker_count++;
        snprintf(worker->name, sizeof worker->name, "%s", name);
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, worker->ends) != 0)
            abort();
        worker->to = fdopen(worker->ends[0], "w");
        worker->from = fdopen(dup(worker->ends[0]), "r");
        if (!is_child)
            pthread_create(&thread, NULL, work, worker);
    }
    pthread_mutex_unlock(&workers_lock);
    return worker;
}

static void tell(struct worker *worker, const char *line)
{
    fprintf(worker->to, "%s\n", line);
    fflush(worker->to);
}

static void hear(struct worker *worker, char *answer)
{
    if (!fgets(answer, LINE, worker->from))
        snprintf(answer, LINE, "-1 it has ended");
    answer[strcspn(answer, "\n")] = 0;
}

static void fork_child(const char *name, char *answer)
{
    struct worker *worker = worker_of(name, 1);
    pid_t pid = fork();

    if (pid == 0) {
        /* Else the child would wait for its own end of the connection. */
        close(fileno(worker->to));
        close(fileno(worker->from));
        work(worker);
        _exit(0);
    }
    close(worker->ends[1]);
    snprintf(answer, LINE, "0 %d", (int)pid);
}

/* "TO COMMAND...": splits off the first word. */
static char *split(char *words)
{
    char *rest = words + strcspn(words, " ");

    if (*rest)
        *rest++ = 0;
    return rest;
}

static void say(char *answer, int code, const char *words)
{
    snprintf(answer, LINE, "%d %s", code, words);
}

static void result(char *answer, int code)
{
    say(answer, code, code == PAG_OK ? "" : pag_last_error());
}

static void dispatch(char *line, char *answer)
{
    char *rest = split(line);
    char text[LINE];
    struct pag_seed seed = PAG_SEED_INIT;
    const char *cells[9];
    pag **place;

    if (strcmp(line, "open") == 0) {
        pag_process *opened = (pag_process *)(void *)&seed;
        int code = pag_process_open(&opened, (unsigned int)atoi(rest));
        if (code == PAG_OK)
            process = opened;
        else if (opened)
            code = -1;                                          /* pag.h promises NULL */
        result(answer, code);
    } else if (strcmp(line, "close") == 0) {
        pag_process_close(process);
        say(answer, 0, "");
    } else if (strcmp(line, "create") == 0) {
        char *words = split(rest);
        place = place_of(rest);
        read_seed(&seed, cells, words);
        result(answer, pag_create(process, &seed, place));
    } else if (strcmp(line, "renew") == 0) {
        char *words = split(rest);
        read_seed(&seed, cells, words);
        result(answer, pag_renew(named(rest), &seed));
    } else if (strcmp(line, "enter") == 0)
        result(answer, pag_enter(named(rest)));
    else if (strcmp(line, "leave") == 0)
        result(answer, pag_leave(*rest ? (pag_process *)(void *)named(rest) : process));
    else if (strcmp(line, "default") == 0)
        result(answer, pag_set_default(process, named(rest)));
    else if (strcmp(line, "end") == 0) {
        pag_end(named(rest));
        say(answer, 0, "");
    } else if (strcmp(line, "expires") == 0) {
        time_t when = -1;
        int code = pag_expires(named(rest), &when);
        snprintf(text, sizeof text, "%lld", (long long)when);
        say(answer, code, text);
    } else if (strcmp(line, "token") == 0)
        say(answer, 0, token(text, sizeof text));
    else if (strcmp(line, "ring") == 0) {
        snprintf(text, sizeof text, "%ld", syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0));
        say(answer, 0, text);
    } else if (strcmp(line, "run") == 0) {
        FILE *program = popen(rest, "r");
        size_t length = fread(text, 1, sizeof text - 16, program), i;
        int status = pclose(program);
        while (length > 0 && text[length - 1] == '\n')
            length--;
        text[length] = 0;
        for (i = 0; i < length; i++)
            text[i] = text[i] == '\n' ? ' ' : text[i];
        say(answer, status, text);
    } else if (strcmp(line, "errno") == 0) {
        int after;
        errno = 42;
        dispatch(rest, answer);
        after = errno;
        snprintf(text, sizeof text, "%d", after);
        say(answer, atoi(answer), text);
    } else if (strcmp(line, "signal") == 0) {
        for_handler = named(rest);
        signal(SIGUSR1, handler);
        raise(SIGUSR1);
        result(answer, handler_code);
    } else if (strcmp(line, "last") == 0) {
        const char *words = pag_last_error();
        snprintf(text, sizeof text, "%s %s", words == pag_last_error() ? "same" : "moved", words);
        say(answer, 0, text);
    } else if (strcmp(line, "code") == 0)
        say(answer, 0, pag_strerror(atoi(rest)));
    else if (strcmp(line, "alternate") == 0) {
        char *one = split(rest), *other = split(one);
        snprintf(text, sizeof text, "%d", both(atoi(rest), named(one), named(other)));
        say(answer, 0, text);
    } else if (strcmp(line, "thread") == 0 || strcmp(line, "start") == 0 || strcmp(line, "child") == 0) {
        char *command = split(rest);
        struct worker *worker = worker_of(rest, *line == 'c');
        tell(worker, command);
        if (*line == 's')
            say(answer, 0, "");
        else
            hear(worker, answer);
    } else if (strcmp(line, "wait") == 0)
        hear(worker_of(rest, 0), answer);
    else if (strcmp(line, "fork") == 0)
        fork_child(rest, answer);
    else
        say(answer, -1, "no such command");
}

static void serve(FILE *in, FILE *out)
{
    char line[LINE], answer[LINE];

    while (fgets(line, sizeof line, in)) {
        line[strcspn(line, "\n")] = 0;
        dispatch(line, answer);
        fprintf(out, "%s\n", answer);
        fflush(out);
    }
}

int main(void)
{
    serve(stdin, stdout);
    return 0;
}
