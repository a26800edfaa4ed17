import sys, os, time, itertools; sys.path.insert(0,'.')
import numpy as np, torch, cupy
from kernels import registry, cuda
def conv(be,i):
    if be.arrays=='torch': return {k:torch.from_numpy(v).cuda() for k,v in i.items()}
    return {k:cupy.asarray(v) for k,v in i.items()}
def back(o): return {k:(v.cpu().numpy() if isinstance(v,torch.Tensor) else cupy.asnumpy(v)) for k,v in o.items()}
def ms(f,n=10):
    for _ in range(2): f()
    torch.cuda.synchronize(); t=[]
    for _ in range(n):
        a,b=torch.cuda.Event(True),torch.cuda.Event(True)
        a.record(torch.cuda.current_stream()); f(); b.record(); torch.cuda.synchronize(); t.append(a.elapsed_time(b))
    return float(np.median(t))
what=sys.argv[1]
if 'a' in what:
  for name in ('distance','knn'):
    op=registry.operator(name)
    for b in ('torch','triton','cupy'):
        be=registry.backend(op,b); w=0; t=time.time(); bad=0
        for p in op.awkward:
            i=op.make_inputs(p,1)
            try:
                o=back(be.run(p,conv(be,i),dict(be.space.default)))
                with np.errstate(all='ignore'): v=op.compare(p,i,o,op.oracle(p,i))
            except Exception as e:
                print('EXC',name,b,p,repr(e)[:300]); bad+=1; continue
            w=max(w,v.error)
            if not v.ok: print('BAD',name,b,p,v); bad+=1
        print(name,b,'worst',w,'bad',bad,'of',len(op.awkward),round(time.time()-t,1),flush=True)
def one(op,p,blocks=None,backends=('triton','cupy','torch'),check=True,ncheck=4,reps=10):
    i=op.make_inputs(p,1)
    if op.name=='knn': ii={'queries':i['queries'][:ncheck],'collection':i['collection']}
    else: ii={'x':i['x'][:ncheck],'y':i['y']}
    want=op.oracle(p,ii) if check else None
    for b in backends:
        be=registry.backend(op,b); d=conv(be,i)
        for blk in (blocks(be) if blocks else [dict(be.space.default)]):
            try:
                o=be.run(p,d,blk); torch.cuda.synchronize(); cupy.cuda.runtime.deviceSynchronize()
                v=op.compare(p,ii,back({k:x[:ncheck] for k,x in o.items()}),want) if check else None; del o
                t=ms(lambda: be.run(p,d,blk),reps)
                print(p,b,blk,'%.3f ms'%t, v if v and not v.ok else (v and 'err %.2f'%v.error), flush=True)
            except Exception as e: print(p,b,blk,'EXC',repr(e)[:200],flush=True)
        del d; torch.cuda.empty_cache(); cupy.get_default_memory_pool().free_all_blocks()
K=registry.operator('knn'); D=registry.operator('distance')
def kn(**k): return K.problem.parse(k,'x')
def di(**k): return D.problem.parse(k,'x')
if 'b' in what:
  for m in ('l2','l1','dot','cosine'):
    one(K,kn(metric=m,q=1,n=4000000,d=128,k=10))
    one(K,kn(metric=m,q=1000,n=1000000,d=128,k=10),backends=('triton','cupy'))
  one(K,kn(metric='l2',q=1,n=4000000,d=2,k=10)); one(K,kn(metric='l2',q=100,n=1000000,d=128,k=100))
  one(K,kn(metric='l2',q=1,n=100000,d=1024,k=10)); one(K,kn(metric='l2',q=4,n=1000000,d=37,k=2048))
  one(D,di(metric='l2',q=1,n=1,d=32768)); one(D,di(metric='l2',q=1,n=4000000,d=128)); one(D,di(metric='cosine',q=1000,n=100000,d=128))
  one(D,di(metric='l2',q=1,n=4000000,d=2)); one(D,di(metric='l1',q=1000,n=100000,d=128))
if 's' in what:
  def few(be): return [b for b,w in be.space.blocks(P) if not w]
  for m,q in (('l2',1),('l2',1000),('dot',1000)):
    P=kn(metric=m,q=q,n=1000000,d=128,k=10); one(K,P,few,('triton','cupy'),reps=5)
