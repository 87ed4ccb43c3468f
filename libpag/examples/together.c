/*
 * Reads files at the same time, each as the identity of its own ccache, and prints their first 4,096 bytes:
 *
 *     together FILE:/run/alice.cc /afs/example.test/alice/notes FILE:/run/bob.cc /afs/example.test/bob/notes
 *
 * cc -std=c99 -pthread -o together together.c $(pkg-config --cflags --libs libpag)
 */
#include <pag.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pag_process *process;

struct job {
    pthread_t thread;
    pag *pag;
    const char *name;
    char text[4096];
    size_t length;
};

static void must(int code)
{
    if (code == PAG_OK)
        return;
    fprintf(stderr, "%s\n", pag_last_error());
    exit(1);
}

static void *read_it(void *argument)
{
    struct job *job = argument;
    FILE *file;

    must(pag_enter(job->pag));
    file = fopen(job->name, "r");
    if (file) {
        job->length = fread(job->text, 1, sizeof job->text, file);
        fclose(file);                       /* before the PAG is left */
    }
    must(pag_leave(process));
    return NULL;
}

int main(int argc, char **argv)
{
    int i, count = (argc - 1) / 2;
    struct job *jobs = calloc((size_t)count + 1, sizeof *jobs);

    must(pag_process_open(&process, 0));
    for (i = 0; i < count; i++) {
        struct pag_seed seed = PAG_SEED_INIT;
        seed.ccache = argv[1 + 2 * i];
        jobs[i].name = argv[2 + 2 * i];
        must(pag_create(process, &seed, &jobs[i].pag));
    }
    for (i = 0; i < count; i++)
        pthread_create(&jobs[i].thread, NULL, read_it, &jobs[i]);
    for (i = 0; i < count; i++) {
        pthread_join(jobs[i].thread, NULL);
        fwrite(jobs[i].text, 1, jobs[i].length, stdout);
    }
    pag_process_close(process);             /* ends the PAGs */
    free(jobs);
    return 0;
}
