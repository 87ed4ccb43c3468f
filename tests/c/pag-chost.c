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
 *     inside NAME COMMAND...            enters, does the command, and leaves
 *     read FILE   write FILE            the first line of a file, read by this thread; one line, written by it
 *     files COUNT NAME NAME FILE FILE   two threads in opposite phase, with a file for each PAG; words: how often one read
 *                                       what it must not, or did not read what it must
 *     bench COUNT NAME                  a bare join in nanoseconds, and an enter and a leave in times of bare joins, with spreads
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
#include <time.h>
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

/* The first line of a file. Closed before anything else is done. The result is 0, or an error's number. */
static int first_line(const char *name, char *text, size_t size)
{
    FILE *file = fopen(name, "r");
    int error = file ? 0 : errno;

    if (file) {
        if (!fgets(text, (int)size, file))
            error = ferror(file) ? errno : EIO;
        fclose(file);
    }
    text[error ? 0 : strcspn(text, "\n")] = 0;
    return error;
}

static int write_line(const char *name)
{
    FILE *file = fopen(name, "w");

    if (!file)
        return errno;
    fputs("written\n", file);
    return fclose(file) == 0 ? 0 : errno;
}

/* The two threads of "alternate" and "files". */
struct phase {
    pthread_barrier_t *barrier;
    pag *pags[2];
    const char *files[2];                                       /* or NULL: each PAG is known by its token */
    char texts[2][256];
    int first, count, wrong;
};

/* What this thread sees as a member of one of the PAGs. */
static const char *seen(const struct phase *phase, int turn, char *text, size_t size)
{
    if (!phase->files[turn])
        return token(text, size);
    return first_line(phase->files[turn], text, size) == 0 ? text : "none";
}

static void *alternate(void *argument)
{
    struct phase *phase = argument;
    char text[256];
    int i, turn;

    for (i = 0; i < phase->count; i++) {
        turn = (phase->first + i) % 2;
        phase->wrong += pag_enter(phase->pags[turn]) != PAG_OK;
        pthread_barrier_wait(phase->barrier);
        phase->wrong += strcmp(seen(phase, turn, text, sizeof text), phase->texts[turn]) != 0;
        /* The file server slows down those that it has refused ten times in a row. */
        if (phase->files[0] && i % 5 == 0)
            phase->wrong += strcmp(seen(phase, !turn, text, sizeof text), "none") != 0;
        pthread_barrier_wait(phase->barrier);
    }
    phase->wrong += pag_leave(process) != PAG_OK;
    phase->wrong += strcmp(token(text, sizeof text), "none") != 0;
    return NULL;
}

static int both(int times, pag *one, pag *other, const char *its_file, const char *other_file)
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
        phases[i].files[0] = its_file;
        phases[i].files[1] = other_file;
        phases[i].first = i;
        phases[i].count = times;
    }
    for (i = 0; i < 2; i++) {
        char text[256];
        pag_enter(i ? other : one);
        snprintf(phases[0].texts[i], sizeof phases[0].texts[i], "%s", seen(&phases[0], i, text, sizeof text));
        memcpy(phases[1].texts[i], phases[0].texts[i], sizeof phases[1].texts[i]);
    }
    pag_leave(process);
    if (strcmp(phases[0].texts[0], phases[0].texts[1]) == 0)
        return -1;                                              /* they see the same: nothing is shown */
    pthread_create(&thread, NULL, alternate, &phases[1]);
    alternate(&phases[0]);
    pthread_join(thread, NULL);
    pthread_barrier_destroy(&barrier);
    return phases[0].wrong + phases[1].wrong;
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int order(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;

    return (a > b) - (a < b);
}

/* The median, and the distance of the quartiles. */
static void middle(double *values, int times, double *median, double *spread)
{
    qsort(values, (size_t)times, sizeof *values, order);
    *median = values[(times - 1) / 2];
    *spread = values[(times - 1) * 3 / 4] - values[(times - 1) / 4];
}

/* The name of this thread's session keyring, by which it can be joined. */
static const char *own_name(char *text, size_t size)
{
    long length = syscall(SYS_keyctl, KEYCTL_DESCRIBE, KEY_SPEC_SESSION_KEYRING, text, size - 1);
    const char *name;

    if (length < 0 || (size_t)length >= size)
        return NULL;
    text[length] = 0;
    name = strrchr(text, ';');
    return name ? name + 1 : NULL;
}

/* The bare join goes by turns into the two keyrings that the library goes into. */
static int bench(int times, pag *pag, char *words, size_t size)
{
    char text[2][256];
    const char *inside, *outside;
    double *bare = malloc((size_t)times * sizeof *bare), *ratios = malloc((size_t)times * sizeof *ratios);
    int i, code = pag_enter(pag);

    inside = own_name(text[0], sizeof text[0]);
    if (code == PAG_OK)
        code = pag_leave(process);
    outside = own_name(text[1], sizeof text[1]);
    if (!inside || !outside || !bare || !ratios || times < 1)
        code = -1;
    for (i = 0; i < times && code == PAG_OK; i++) {
        double begun = now();
        syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, inside);
        syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, outside);
        bare[i] = (now() - begun) / 2;
        begun = now();
        code = pag_enter(pag) | pag_leave(process);
        ratios[i] = (now() - begun) / 2 / bare[i];
    }
    if (code == PAG_OK) {
        double join, join_spread, ratio, ratio_spread;
        middle(bare, times, &join, &join_spread);
        middle(ratios, times, &ratio, &ratio_spread);
        snprintf(words, size, "%.0f %.0f %.3f %.3f", join, join_spread, ratio, ratio_spread);
    }
    free(bare);
    free(ratios);
    return code;
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
        snprintf(text, sizeof text, "%d", both(atoi(rest), named(one), named(other), NULL, NULL));
        say(answer, 0, text);
    } else if (strcmp(line, "files") == 0) {
        char *one = split(rest), *other = split(one), *its_file = split(other), *other_file = split(its_file);
        snprintf(text, sizeof text, "%d", both(atoi(rest), named(one), named(other), its_file, other_file));
        say(answer, 0, text);
    } else if (strcmp(line, "inside") == 0) {
        char *command = split(rest);
        int code = pag_enter(named(rest));
        if (code == PAG_OK) {
            dispatch(command, answer);
            code = pag_leave(process);
        }
        if (code != PAG_OK)
            result(answer, code);
    } else if (strcmp(line, "read") == 0) {
        int error = first_line(rest, text, sizeof text);
        say(answer, error, error ? strerror(error) : text);
    } else if (strcmp(line, "write") == 0) {
        int error = write_line(rest);
        say(answer, error, error ? strerror(error) : "");
    } else if (strcmp(line, "bench") == 0) {
        char *name = split(rest);
        int code;
        *text = 0;
        code = bench(atoi(rest), named(name), text, sizeof text);
        say(answer, code, text);
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
